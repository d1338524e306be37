"""How the time of training grows with images, their size, the batch, threads and processes. Run on a quiet machine.

python tests/bench/scaling.py                 # resnet18, speckles that it makes itself
python tests/bench/scaling.py --gpu           # larger numbers, for a GPU
python tests/bench/scaling.py --series processes --series features --images 64

Each line is a training started for itself, head and body awake, with the seconds of its second epoch. What is printed
beside it is the time that a straight line through the smallest one would give: proportional to the images and to the
pixels, the same for every batch, and half with twice the threads or processes. torchrun starts several processes, each
with one thread; "features" are those of all images by the body, in as many processes.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from kit.cli.script import script

USUAL = {"images": 256, "size": 96, "batch": 32, "threads": 0, "processes": 0, "features": 0}
SERIES = {
    "images": ((128, 256, 512, 1024), lambda value: value),
    "size": ((64, 96, 128, 192, 256), lambda value: value**2),
    "batch": ((8, 16, 32, 64, 128), lambda value: 1),
    "threads": ((1, 2), lambda value: 1 / value),
    "processes": ((1, 2), lambda value: 1 / value),
    "features": ((1, 2), lambda value: 1 / value),
}
LARGER = {"images": 16, "size": 2, "batch": 4, "threads": 1, "processes": 1, "features": 1}


def main(
    gpu: Annotated[bool, typer.Option("--gpu", help="larger numbers, on a GPU")] = False,
    series: Annotated[list[str], typer.Option()] = list(SERIES),  # noqa: B006 (typer copies it)
    images: Annotated[int, typer.Option(help="the usual number of images")] = USUAL["images"],
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
):
    """Print a table for each series."""
    if run:
        print(measured(**json.loads(run)))
        return
    factor = LARGER if gpu else dict.fromkeys(USUAL, 1)
    usual = {name: value * factor[name] for name, value in (USUAL | {"images": images}).items()}
    with tempfile.TemporaryDirectory() as folder:
        most = max(SERIES["images"][0]) * factor["images"]
        draw(Path(folder), most, max(SERIES["size"][0]) * factor["size"])
        for name in series:
            values, law = SERIES[name]
            print(f"\n| {name} | seconds an epoch | images/s | seconds / straight line |\n|---|---|---|---|")
            first = 0.0
            for value in (one * factor[name] for one in values):
                told = usual | {name: value, "folder": folder}
                seconds = seconds_of(told)
                first = first or seconds / law(value)
                line = first * law(value)
                print(
                    f"| {value} | {seconds:.2f} | {told['images'] / seconds:.1f} | {seconds / line:.2f} |", flush=True
                )


def seconds_of(told: dict) -> float:
    """`measured` in a process of its own."""
    together = max(told["processes"], told["features"])
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(together), "--"] if together else []
    )
    command = [sys.executable, *(launch or ["-W", "ignore"]), __file__, "--run", json.dumps(told)]
    threads = {"OMP_NUM_THREADS": "1"} if together else {}
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return max(map(float, done.stdout.split()))  # of all processes


def draw(folder: Path, count: int, side: int) -> None:
    """Speckles for two classes, half as large again as the largest size."""
    from PIL import Image

    dice = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(dice.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        coarse.resize((side * 2, side * 3 // 2)).save(folder / f"{'ab'[number % 2]}_{number}.jpg", quality=85)


def measured(folder: str, images: int, size: int, batch: int, threads: int, processes: int, features: int) -> float:
    """Seconds of the second epoch's training, all awake: the first also warms up; or those of all features."""
    import pandas as pd
    import torch
    from fine_tune import clock

    from kit import Recipe, data, model, train
    from kit.model.build import features_of
    from kit.processes import count, join

    join()
    if threads:
        torch.set_num_threads(threads)
    paths = sorted(Path(folder).glob("*.jpg"))[:images]
    rows = pd.DataFrame({"path": map(str, paths), "label": [path.name[0] for path in paths], "split": "train"})
    held = rows.groupby("label").head(4).assign(split="valid")
    recipe = Recipe(size=size, batch=batch, weights="none", epochs=1, freeze_epochs=1, workers=0)
    table = pd.concat([rows, held], ignore_index=True)
    learn = model.learner(data.blocks(recipe).dataloaders(table), recipe)
    if features:
        table["sha256"] = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table["path"]]
        features_of(learn, table[:32])  # warms up; without `create` nothing is stored
        begun = time.perf_counter()
        features_of(learn, table[:images])
        return time.perf_counter() - begun
    taken = clock()
    train.fine_tune(learn, recipe, cbs=[taken])
    return taken.seconds[1] * images / (taken.images[1] * count())


if __name__ == "__main__":
    script(main)
