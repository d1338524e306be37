"""Peak memory of `kit predict FOLDER --out answers.parquet` for few and for many files, and images per second.

python tests/bench/predict_many.py                       # 1,000 and 100,000 images; makes its own in a temporary folder

A process for each count, and then one that only lists a million empty files. Files are links to 1,000 small images. The
last lines are the growth of memory from the fewest to the most files, and the images per second between these counts.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.script import script

EACH = 1_000
LIST = """
import sys
from pathlib import Path
from kit.data.listing import walk_images
from kit.files import write_texts
with open(sys.argv[2], "w") as file:
    write_texts((str(path) for path, reason in walk_images(Path(sys.argv[1])) if reason is None), file)
"""


def main(
    counts: Annotated[list[int], typer.Option("--count")] = [1_000, 100_000],  # noqa: B006 (typer copies it)
    listed: int = 1_000_000,
    arch: str = "test_resnet",
    size: int = 32,
):
    """Print a line a count: peak memory and seconds."""
    found = []
    print("| | files | peak memory, MB | s |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="kit-bench-predict-") as folder:
        place = Path(folder)
        options = [
            "--arch",
            arch,
            "--weights",
            "none",
            "--layers",
            "whole",
            "--freeze-epochs",
            "0",
            "--size",
            str(size),
        ]
        told = ["fine-tune", "sample", "--label", "is_cat", *options, "--device", "cpu", "--out", place / "run"]
        measured("-m", "kit.cli.main", *told)
        for count in counts:
            draw(place / "images", count)
            out = place / f"{count}.parquet"
            found.append(measured("-m", "kit.cli.main", "predict", place / "run", place / "images", "--out", out))
            show("predict", count, *found[-1])
    with tempfile.TemporaryDirectory(prefix="kit-bench-list-") as folder:
        (Path(folder) / "images").mkdir()
        for count in (1_000, listed):
            for number in range(count):
                Path(folder, "images", f"{number:07}.jpg").touch()
            show("list", count, *measured("-c", LIST, f"{folder}/images", f"{folder}/names"))
    print(f"{found[-1][0] - found[0][0]:.0f} MB more for {counts[-1]:,} images than for {counts[0]:,}")
    print(f"{(counts[-1] - counts[0]) / (found[-1][1] - found[0][1]):.0f} images a second")


def draw(folder: Path, count: int) -> None:
    """So many files in one folder: 1,000 images, and links to them."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"{number:07}.jpg"
        if number < EACH and not path.exists():
            Image.effect_noise((64, 48), number % 100).convert("RGB").save(path)
        elif not path.exists():
            os.link(folder / f"{number % EACH:07}.jpg", path)


def measured(*command: str | Path) -> tuple[float, float]:
    """Peak memory (resident, MB) and seconds of a Python program."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: status {status}")
    return usage.ru_maxrss / 1024, time.perf_counter() - started


def show(what: str, count: int, memory: float, seconds: float) -> None:
    """Print a row of the table."""
    print(f"| {what} | {count:,} | {memory:.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    script(main)
