"""fine_tune(1) from cold files on a GPU: kit, and plain fastai with to_fp16 and 8 workers. Also runs on a CPU.

python tests/bench/gpu.py --images FOLDER --arch resnet34            # 7,390 images: the photos repeated
python tests/bench/gpu.py --images FOLDER --count 370 --size 64      # on a CPU

Both train on the same images with a random start, one epoch with the body frozen and one with all awake, and validate
after each. kit's time is told apart: decoding, loading (cut, sent, augmented; a pass of its own, twice), and computing
with all else. The last line is the ratio of wall times, fastai / kit.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from fine_tune import fastai_loaders

from kit.cli.script import script

BATCH, WORKERS, RATE = 64, 8, 2e-3


def main(
    images: Annotated[Path, typer.Option(help="a folder of photos in Oxford Pets' names")],
    arch: Annotated[list[str], typer.Option()] = ["resnet34", "resnet50"],  # noqa: B006 (typer copies it)
    count: int = 7_390,
    size: int = 224,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
):
    """Print a line a network and way, and the ratio of the first network."""
    if run:
        print(json.dumps({"kit": kit, "fastai": fastai}[run](images, arch[0], count, size)))
        return
    ratios = []
    for name in arch:
        walls = {}
        for way in ("kit", "fastai"):
            command = [sys.executable, __file__, "--images", str(images), "--arch", name, "--count", str(count)]
            done = subprocess.run([*command, "--size", str(size), "--run", way], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{way}: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            walls[way] = found["wall"]
            print(f"{name}, {way}: {found}", flush=True)
        ratios.append(walls["fastai"] / walls["kit"])
    print(f"{ratios[0]:.1f}x")


def table(images: Path, count: int):
    """Rows of path, label and split: the photos again and again, every fifth for validation."""
    import pandas as pd

    files = sorted(images.glob("*.jpg"))
    files = [files[number % len(files)] for number in range(count)]
    labels = [("dog", "cat")[path.name[0].isupper()] for path in files]
    splits = ["valid" if number % 5 == 0 else "train" for number in range(count)]
    return pd.DataFrame({"path": list(map(str, files)), "label": labels, "split": splits})


def synchronised() -> float:
    """The time, when the GPU is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def kit(images: Path, arch: str, count: int, size: int) -> dict:
    """kit, step by step, without a bundle."""
    rows = table(images, count)
    with tempfile.TemporaryDirectory() as cache:
        import os

        os.environ["KIT_CACHE"] = cache
        import fastai.vision.all  # noqa: F401 (the other way imports it before the clock starts too)

        from kit import Recipe, data, evaluate, model, pipeline, train  # noqa: F401

        begun = synchronised()
        recipe = Recipe(arch=arch, weights="none", size=size, batch=BATCH, freeze_epochs=1)
        train.seed_everything(recipe.seed)
        learn = model.learner(data.blocks(recipe).dataloaders(rows), recipe)
        started = synchronised()
        where = data.cache_images(learn.dls, recipe.cache)
        decoding = synchronised() - started
        train.fine_tune(learn, recipe)
        error = evaluate.evaluate(learn).error_rate.value
        wall = synchronised() - begun
        loading = 2 * pass_over(learn.dls.train)
    parts = {"wall": wall, "decode": decoding, "load": loading, "compute": wall - decoding - loading, "error": error}
    return {"where": where} | {name: round(value, 4) for name, value in parts.items()}


def pass_over(loader) -> float:
    """Seconds in which batches are cut, sent to the device and augmented, without a network."""
    begun = synchronised()
    for _ in loader:
        pass
    return synchronised() - begun


def fastai(images: Path, arch: str, count: int, size: int) -> dict:
    """fastai's lesson in half precision."""
    from fastai.vision.all import error_rate, models, vision_learner

    rows = table(images, count)
    begun = synchronised()
    dls = fastai_loaders(rows, BATCH, WORKERS, size)
    learn = vision_learner(dls, getattr(models, arch), pretrained=False, metrics=error_rate).to_fp16()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, RATE)
    return {"wall": round(synchronised() - begun, 2), "error": round(float(learn.final_record[-1]), 4)}


if __name__ == "__main__":
    script(main)
