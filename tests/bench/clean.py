"""How well and how fast `kit clean` finds wrong labels and near copies.

python tests/bench/clean.py --images PETS                     # a folder of photos in Oxford Pets' names
python tests/bench/clean.py --images PETS --many CIFAR        # also memory and times of 50,000 images

Labels are made wrong at random, and, harder, between look-alike breeds (each image gets the breed whose mean features
are nearest to those of its own). Recall is the share of wrong labels among the first k findings, k being their number.
Copies of 60 photos are added: mirrored, brightened by 10 to 30 %, darkened, cropped by 10 %, encoded again, turned.
"""

import io
import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from fastapi.testclient import TestClient
from PIL import Image, ImageEnhance, ImageOps

from kit import Recipe, data
from kit.clean.copies import find_copies
from kit.clean.decisions import Journal
from kit.clean.label_issues import label_opinions
from kit.clean.page import application
from kit.clean.session import NEIGHBOURS, features_of_table, start
from kit.cli.script import script
from kit.data.scan import scan_images
from kit.features.neighbours import nearest

SEEDS, COPIED, DECIDED = 8, 60, 50
SHARES = (0.02, 0.05, 0.1)
LABELS = {"cat or dog": "is_cat", "37 breeds": r"^(.+)_[0-9]+"}


def changes(rng: np.random.Generator) -> dict:
    """The ways in which copies are changed."""

    def cropped(image: Image.Image) -> Image.Image:
        width, height = (round(side * 0.9) for side in image.size)
        left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
        return image.crop((left, top, left + width, top + height))

    def encoded(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=40)
        return Image.open(stream).convert("RGB")

    lit = {f"brightness {share:+.0%}": share for share in (0.1, 0.2, 0.3, -0.3)}
    brightness = {
        name: lambda image, share=share: ImageEnhance.Brightness(image).enhance(1 + share)
        for name, share in lit.items()
    }
    return (
        {"mirrored": ImageOps.mirror}
        | brightness
        | {
            "cropped by 10 %": cropped,
            "mirrored and cropped": lambda image: cropped(ImageOps.mirror(image)),
            "encoded again, quality 40": encoded,
            "turned by 5 degrees": lambda image: image.rotate(5),
            "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
        }
    )


def made_wrong(
    labels: np.ndarray, features: np.ndarray, share: float, seed: int, alike: bool
) -> tuple[list, np.ndarray]:
    """Labels of which a share is wrong, and the rows of those."""
    rng, names = np.random.default_rng(seed), np.unique(labels)
    wrong = rng.choice(len(labels), max(1, round(share * len(labels))), replace=False)
    means = np.stack([features[labels == name].mean(0) for name in names])
    far = ((means[:, None] - means) ** 2).sum(-1) + np.diag([np.inf] * len(names))
    nearest = dict(zip(names, names[far.argmin(1)], strict=True))
    given = labels.astype(object)
    for row in wrong:
        given[row] = nearest[labels[row]] if alike else rng.choice(names[names != labels[row]])
    return [str(label) for label in given], wrong


def about_labels(images: Path) -> None:
    """Print recall at k, and how many of the labels called wrong are, by set, way and share of wrong labels."""
    print("| labels | wrong at | share | recall at k | called wrong | of them wrong | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, label in LABELS.items():
        recipe = Recipe(label=label)
        table = data.table(images, **data.table_args(recipe))
        features, labels = features_of_table(table, recipe), table["label"].to_numpy(str)
        for alike in (False, True) if name == "37 breeds" else (False,):
            for share in SHARES:
                rows, begun = [], time.perf_counter()
                for seed in range(SEEDS):
                    given, wrong = made_wrong(labels, features, share, seed, alike)
                    found = label_opinions(given, features, [""] * len(given), recipe.task)
                    first = np.argsort(found.quality)[: len(wrong)]
                    called = np.flatnonzero(found.suspect)
                    right = np.isin(called, wrong).mean() if len(called) else 1.0
                    rows.append((np.isin(first, wrong).mean(), len(called), right))
                recall, called, right = np.mean(rows, axis=0)
                seconds = (time.perf_counter() - begun) / SEEDS
                way = "look-alikes" if alike else "random"
                print(
                    f"| {name} | {way} | {share:.0%} | {recall:.3f} | {called:.1f} | {right:.2f} | {seconds:.1f} |",
                    flush=True,
                )


def about_copies(images: Path) -> None:
    """Print the share of copies found and the number of false pairs, by the way the copies were changed."""
    rng = np.random.default_rng(0)
    paths = sorted(images.glob("*.jpg"))
    chosen = rng.choice(len(paths), COPIED, replace=False)
    print("\n| copies | found | false pairs in all photos |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, change in changes(rng).items():
            copies = []
            for number in chosen:
                with Image.open(paths[number]) as image:
                    copies.append(Path(folder) / f"{number}.jpg")
                    change(image.convert("RGB")).save(copies[-1], quality=90)
            rows = [{"path": str(path), "label": "photo"} for path in [*paths, *copies]]
            table = data.table(pd.DataFrame(rows))
            scan = scan_images(table["path"].tolist())
            near = nearest(features_of_table(table, Recipe()), NEIGHBOURS)
            pairs = {pair[:2] for pair in find_copies(near, scan.hashes, scan.pictures)}
            true = {(int(number), len(paths) + place) for place, number in enumerate(chosen)}
            print(f"| {name} | {len(pairs & true) / len(true):.3f} | {len(pairs - true)} |", flush=True)


def about_many(folder: Path) -> None:
    """Print the seconds and the memory of a session over a large folder, of another look, and of a decision."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, Journal(Path(place) / "labels.csv", folder) as journal:
        session = start(folder, Recipe(size=64), journal)
        took = time.perf_counter() - begun
        client = TestClient(application(session))
        version, seconds = client.get("/clean/state").json()["version"], []
        for row in range(DECIDED):
            told = {"version": version, "row": row, "action": "keep", "seen": 0}
            sent = time.perf_counter()
            client.post("/clean/decide", json=told).raise_for_status()
            seconds.append(time.perf_counter() - sent)
        session.look()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\n{len(session.table)} images: {took:.0f} s, {peak:.0f} MB at most, {len(session.findings)} findings; "
        f"looked again in {session.seconds:.0f} s; a decision in {1000 * np.median(seconds):.0f} ms, "
        f"{1000 * max(seconds):.0f} at most",
        flush=True,
    )


def main(
    images: Annotated[Path, typer.Option(help="a folder of photos in Oxford Pets' names")],
    many: Annotated[Path | None, typer.Option(help="a large folder of class folders")] = None,
):
    """Print a table for wrong labels and one for copies."""
    about_labels(images)
    about_copies(images)
    if many:
        about_many(many)


if __name__ == "__main__":
    script(main)
