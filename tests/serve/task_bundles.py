"""What the tests of both other tasks share: drawn images with several classes or numbers each, and bundles of them."""

import csv
from dataclasses import replace
from pathlib import Path

from conftest import draw_shape
from PIL import Image

import kit
from kit.bundle import Predictor, load

SETS = ("circle", "square", "circle;square", "")
COUNT = 24


def draw_several(names: str, seed: int) -> Image.Image:
    """An image of a shape or of none in each of its halves."""
    image = Image.new("RGB", (96, 48), (10 + seed, 20, 30))
    for place, name in enumerate(("circle", "square")):
        if name in names.split(";"):
            image.paste(draw_shape(name, seed, 48), (48 * place, 0))
    return image


def write_table(folder: Path, head: list[str], rows: list[list]) -> Path:
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])
    return folder / "labels.csv"


def multilabel(folder: Path, tiny) -> Predictor:
    """What predicts with a bundle of images that have any of two classes."""
    rows = [[f"{number:02}.png", SETS[number % len(SETS)]] for number in range(COUNT)]
    for number, (name, label) in enumerate(rows):
        draw_several(label, number).save(folder / name)
    labels = write_table(folder, ["path", "label"], rows)
    recipe = replace(tiny, task="multilabel", labels=str(labels), valid=0.4)
    return load(kit.fine_tune(folder, recipe, out=folder / "run").bundle)


def regression(folder: Path, tiny, targets: str = "side,left") -> Predictor:
    """What predicts with a bundle of images that have two numbers each, or one."""
    rows = []
    for number in range(COUNT):
        side, left = 8 + number, (7 * number) % 30
        image = Image.new("RGB", (64, 64), (10, 2 * number, 60))
        image.paste((250, 240, 10 * number), (left, 8, left + side, 8 + side))
        image.save(folder / f"{number:02}.png")
        rows.append([f"{number:02}.png", side, -100.5 - left])
    labels = write_table(folder, ["path", "side", "left"], rows)
    recipe = replace(tiny, task="regression", labels=str(labels), targets=targets, valid=0.4)
    return load(kit.fine_tune(folder, recipe, out=folder / "run").bundle)
