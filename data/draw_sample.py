"""The drawn sample: cats and dogs drawn by our own code, named as Oxford Pets names its photographs.

python data/draw_sample.py --out data/sample
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from drawing.animals import Animal, meet
from drawing.bodies import extent, pose
from drawing.breeds import BREEDS
from drawing.light import lit
from drawing.pen import Pen
from drawing.props import prop
from drawing.scenes import scene
from drawing.shapes import ellipse

EACH = 48
FINER = 4
QUALITY = 74


def draw(name: str, seed: int) -> Image.Image:
    """One drawing of a breed; the same seed gives the same pixels, and one seed gives all breeds the same scene."""
    animal = meet(name, seed)
    wide, high = animal.look.format
    image = Image.new("RGB", (wide * FINER, high * FINER))
    unit = min(image.size)
    pen = Pen(image).at(0, 0, unit)
    across, down = image.width / unit, image.height / unit
    scene(pen, animal.look.scene, across, down, random.Random(f"scene {seed}"))
    _animal(pen, animal, across, down)
    if animal.look.pose != "peek":
        prop(pen.at(0, _sunk(animal)), animal.look.prop, across, down, random.Random(f"prop {seed}"))
    return lit(image.resize((wide, high), Image.Resampling.LANCZOS), animal.look.light, seed)


def _animal(pen: Pen, animal: Animal, across: float, down: float) -> None:
    look = animal.look
    left, top, right, bottom = extent(animal)
    scale = look.size * min(across / (right - left), down / (bottom - top))
    x = across / 2 + look.place[0] * (0.04 + max(across - scale * (right - left), 0) / 2)
    foot = down * (0.95 + 0.03 * look.place[1]) - bottom * scale
    if look.pose in ("lie", "sleep"):
        foot -= 0.06 * down
    if look.pose == "face":
        foot = down / 2 + look.place[1] * 0.06 - (top + bottom) / 2 * scale
    middle = (left + right) / 2 * scale * (-1 if look.mirror else 1)
    placed = pen.at(x - middle, foot, scale, look.tilt, look.mirror)
    if look.pose in ("sit", "stand", "lie", "sleep", "jump"):
        placed.shadow(ellipse((left + right) / 2, 0.02, (right - left) * 0.4, 0.22), 0.4)
    pose(placed, animal)


def _sunk(animal: Animal) -> float:
    """How far a thing in front is moved down, so that an animal that is low is not hidden by it."""
    left, top, right, bottom = extent(animal)
    return 0.12 if (bottom - top) * animal.look.size < 0.75 * (right - left) else 0.0


def drawings(each: int = EACH) -> Iterator[tuple[str, Image.Image]]:
    """The names and the images of the sample: `each` drawings of every breed, each with a seed of its own."""
    for i, name in enumerate(BREEDS):
        for number in range(1, each + 1):
            yield f"{name}_{number:03d}.jpg", draw(name, seed=i * 1000 + number)


def write(folder: Path, each: int = EACH) -> None:
    """Draw the sample into `folder`, over what an earlier run left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in drawings(each):
        image.save(folder / name, quality=QUALITY, optimize=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw the sample of cats and dogs.")
    parser.add_argument("--out", type=Path, default=Path("data/sample"), help="the folder to write to")
    parser.add_argument("--each", type=int, default=EACH, help="drawings of every breed")
    arguments = parser.parse_args()
    write(arguments.out, arguments.each)


if __name__ == "__main__":
    main()
