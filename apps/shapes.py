"""Predict which shapes are in an image, any number of them (multilabel), on images that this program draws.

    python apps/shapes.py
    python apps/shapes.py --count 2000 --epochs 10

Labels are written to a CSV file, for example `0001.png,circle;cross`; the label is empty where there is no shape. With
the default options the mean F1 was 0.98 (tests/bench/README.md).
"""

import csv
import random
from pathlib import Path

from PIL import Image, ImageDraw

from kit import fine_tune
from kit.cli.script import script

SHAPES = ("circle", "cross", "square", "triangle")
SIZE, SIDE = 96, 26


def draw(shapes: list[str], dice: random.Random) -> Image.Image:
    """Each of the shapes once, at a random place in a random colour, on a grey background with coloured dots."""
    ground = dice.randrange(150, 240)
    image = Image.new("RGB", (SIZE, SIZE), (ground, ground, ground))
    pen = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = dice.randrange(SIZE), dice.randrange(SIZE)
        pen.point([x, y], fill=tuple(dice.choices(range(256), k=3)))
    for shape in shapes:
        x, y = dice.randrange(SIZE - SIDE), dice.randrange(SIZE - SIDE)
        right, low, colour = x + SIDE, y + SIDE, tuple(dice.choices(range(130), k=3))
        if shape == "circle":
            pen.ellipse([x, y, right, low], fill=colour)
        elif shape == "square":
            pen.rectangle([x, y, right, low], fill=colour)
        elif shape == "triangle":
            pen.polygon([(x, low), (x + SIDE // 2, y), (right, low)], fill=colour)
        else:
            pen.line([x, y, right, low], fill=colour, width=6)
            pen.line([x, low, right, y], fill=colour, width=6)
    return image


def main(folder: Path = Path("shapes"), count: int = 600, epochs: int = 6, seed: int = 1):
    dice = random.Random(seed)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label"])
        for number in range(count):
            shapes = [shape for shape in SHAPES if dice.random() < 0.4]
            draw(shapes, dice).save(folder / f"{number:04}.png")
            rows.writerow([f"{number:04}.png", ";".join(shapes)])
    run = fine_tune(
        folder,
        labels=str(folder / "labels.csv"),
        task="multilabel",
        weights="bundled",
        layers="whole",
        size=SIZE,
        batch=16,
        epochs=epochs,
    )
    print(f"f1 {run.headline}")
    print(run.evaluation.per_class.round(3))


if __name__ == "__main__":
    script(main)
