"""Private memory of a training's images, for 1,000, 10,000 and 100,000 of them: memory, then disk, then streaming.

python tests/bench/memory.py                             # makes its own small images in a temporary folder

A process for each count. Private memory is RssAnon: the pages of a file that the system keeps for us are its own to
take back. The last line is how many MB more the most images take than the fewest.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from kit.cli.script import script


def main(
    counts: Annotated[list[int], typer.Option("--count")] = [1_000, 10_000, 100_000],  # noqa: B006 (typer copies it)
    size: int = 96,
    run: Annotated[Path | None, typer.Option(hidden=True)] = None,
):
    """Print a line a count: where the images waited, growth of private memory, seconds of decoding and of a pass."""
    if run:
        print(json.dumps(measured(run, size)))
        return
    growth = []
    print("| images | where | private memory, MB | decode, s | a pass, s |\n|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder) / "images", count)
            command = [sys.executable, __file__, "--size", str(size), "--run", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=None)
            found = json.loads(done.stdout.splitlines()[-1])
        growth.append(found["growth"])
        print(
            f"| {count:,} | {found['where']} | {found['growth']:.0f} | {found['decode']:.1f} | {found['pass']:.1f} |",
            flush=True,
        )
    print(f"{growth[-1] - growth[0]:.0f} MB")


def draw(folder: Path, count: int) -> None:
    """So many small pictures, no two alike, in two folders."""
    from PIL import Image

    dice = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
    for number in range(count):
        image = Image.fromarray(dice.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((64, 48))
        image.save(folder / "ab"[number % 2] / f"{number}.jpg", quality=80)


def private() -> float:
    """The private memory of this process, in MB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024


def measured(folder: Path, size: int) -> dict:
    """Decode, then one pass over the training images; the highest private memory above that after two batches of
    opened files: what a batch takes does not grow with the images."""
    import os

    import pandas as pd

    os.environ["KIT_CACHE"] = str(folder / "cache")
    from kit import Recipe, data

    paths = sorted(map(str, (folder / "images").rglob("*.jpg")))
    rows = pd.DataFrame({"path": paths, "label": [Path(path).parent.name for path in paths]})
    rows["split"] = ["valid" if number % 10 == 0 else "train" for number in range(len(paths))]
    recipe = Recipe(size=size, batch=256, workers=2, device="cpu")
    dls = data.blocks(recipe).dataloaders(rows)
    for _ in range(2):
        dls.train.one_batch()
    before = highest = private()
    begun = time.perf_counter()
    where = data.cache_images(dls, recipe.cache)
    decoding = time.perf_counter() - begun
    highest = max(highest, private())
    begun = time.perf_counter()
    for number, _ in enumerate(dls.train):
        if number % 20 == 0:
            highest = max(highest, private())
    return {"where": where, "growth": highest - before, "decode": decoding, "pass": time.perf_counter() - begun}


if __name__ == "__main__":
    script(main)
