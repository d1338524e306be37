"""Read dials: predict a number from an image (regression), on dials that this program draws.

    python apps/dials.py
    python apps/dials.py --count 2000 --epochs 10

Training uses no augmentation, because a dial that is flipped or rotated shows another number. With the default options
the mean absolute error was 3 (tests/bench/README.md).
"""

import csv
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

from kit import fine_tune
from kit.cli.script import script

SIZE, FINER = 96, 4
FIRST, SWEEP = 225, 270


def draw(value: float, dice: random.Random) -> Image.Image:
    """A dial with a scale clockwise from 0 (bottom left) to 100 (bottom right), at a random place in random colours."""
    side = SIZE * FINER
    image = Image.new("RGB", (side, side), tuple(dice.choices(range(120, 256), k=3)))
    pen, radius = ImageDraw.Draw(image), side * dice.uniform(0.3, 0.42)
    x, y = (side / 2 + dice.uniform(-0.06, 0.06) * side for _ in range(2))
    ink = tuple(dice.choices(range(90), k=3))
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill="white", outline=ink, width=6)
    for mark in range(0, 101, 10):
        _ray(pen, (x, y), mark, (0.82 * radius, 0.95 * radius), ink, 5)
    _ray(pen, (x, y), value, (0, 0.75 * radius), tuple(dice.choices(range(160), k=3)), 12)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _ray(pen, centre, value, ends, colour, width):
    angle = math.radians(FIRST - SWEEP * value / 100)
    points = [(centre[0] + end * math.cos(angle), centre[1] - end * math.sin(angle)) for end in ends]
    pen.line(points, fill=colour, width=width)


def main(folder: Path = Path("dials"), count: int = 600, epochs: int = 12, seed: int = 1):
    dice = random.Random(seed)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "reading"])
        for number in range(count):
            value = round(dice.uniform(0, 100), 1)
            draw(value, dice).save(folder / f"{number:04}.png")
            rows.writerow([f"{number:04}.png", value])
    run = fine_tune(
        folder,
        labels=str(folder / "labels.csv"),
        task="regression",
        targets="reading",
        y_range="0,100",
        augment=False,
        weights="bundled",
        layers="whole",
        size=SIZE,
        batch=16,
        epochs=epochs,
    )
    print("\n".join(run.evaluation.lines()))


if __name__ == "__main__":
    script(main)
