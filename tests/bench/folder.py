"""How many images a second are predicted in a folder: kit in fp32 and in bf16, beside fastai's test_dl. Run by hand.

python tests/bench/folder.py --images FOLDER

resnet34 at 224 pixels with random weights, the same in all. Each way is warmed up, then they take turns, so that
whatever else the machine does meets them alike; ratios are to the quicker of fastai's two in the same round. The last
line is the ratio of the quickest.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from bundles import sample, spread, untrained

from kit.cli.script import script
from kit.machine import keep_freed_memory

Way = Callable[[list[str]], object]
FASTAI = ("fastai test_dl", "fastai test_dl, 2 workers")
WARM_UP = 32


def ways(folder: Path) -> dict[str, Way]:
    """Each way to predict a list of files, by its name."""
    from fastai.vision.all import load_learner

    from kit import bundle

    learn = load_learner(folder / "export.pkl")
    exact, half = bundle.load(folder / "bundle"), bundle.load(folder / "bundle", precision="bf16")
    return {
        "fastai test_dl": lambda files: fastai(learn, files),
        "fastai test_dl, 2 workers": lambda files: fastai(learn, files, num_workers=2),
        "kit, ONNX Runtime, fp32": lambda files: kit(exact, files),
        "kit, torch, bf16": lambda files: kit(half, files),
    }


def fastai(learn, files: list[str], **options) -> None:
    """The lines that fastai's documentation gives for many images."""
    with learn.no_bar():
        learn.get_preds(dl=learn.dls.test_dl(files, **options))


def kit(predictor, files: list[str]) -> None:
    """As `kit predict` does it."""
    with keep_freed_memory():
        predictor.predict(files)


def rate(way: Way, files: list[str]) -> float:
    """Images a second."""
    begun = time.perf_counter()
    way(files)
    return len(files) / (time.perf_counter() - begun)


def main(
    images: Annotated[Path | None, typer.Option(help="a folder of photos; without it, drawings")] = None,
    rounds: int = 5,
    most: int = 192,
):
    """Print images a second and the ratio to fastai for each way."""
    warnings.filterwarnings("ignore")
    from kit.data.listing import list_images

    files = [str(path) for path in list_images(images)[0][:most]] if images else sample(most)
    with untrained("resnet34", 224) as folder:
        known = ways(folder)
        for way in known.values():
            way(files[:WARM_UP])
        seen = {name: [] for name in known}
        for _ in range(rounds):
            for name, way in known.items():
                seen[name].append(rate(way, files))
    best = [max(pair) for pair in zip(*(seen[name] for name in FASTAI), strict=True)]
    ratios = {name: statistics.median(map(float.__truediv__, values, best)) for name, values in seen.items()}
    for name, values in seen.items():
        print(f"{name:28} {spread(values)} images/s, {ratios[name]:.2f}x")
    print(f"{max(ratios.values()):.1f}x")


if __name__ == "__main__":
    script(main)
