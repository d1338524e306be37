"""From the start of a process to its first answer and its first batch, beside fastai. Run by hand.

python tests/bench/startup.py
python tests/bench/startup.py --images FOLDER             # the first batch of photos, not of drawings
python tests/bench/startup.py --bundle runs/pets          # a bundle of one's own, without fastai beside it

resnet18 and resnet34 at 224 pixels, random weights, one small photo, fresh processes in turn, the files in the system's
cache. Seconds until the answer is printed and the peak memory of the process until then; then `kit --help` and
`import kit`, until they end; then until the first training batch: of kit after all files were looked at and decoded.
The last lines are how many times sooner kit has its first batch than fastai, and its answer, for each network.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from bundles import sample, spread, untrained

from kit.cli.script import script

ARCHS = ("resnet18", "resnet34")
KIT = [sys.executable, "-m", "kit.cli.main"]
FASTAI = """
import sys
from fastai.vision.all import load_learner

learn = load_learner(sys.argv[1])
with learn.no_bar():
    label, _, probabilities = learn.predict(sys.argv[2])
print(sys.argv[2], label, max(probabilities).item(), flush=True)
"""

FIRST_BATCH = {
    "kit": """
from kit import Recipe, data

recipe = Recipe(label="is_cat", workers=2)
dls = data.blocks(recipe).dataloaders(data.table(FOLDER, label="is_cat"))
data.cache_images(dls, recipe.cache)
""",
    "fastai": """
from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, get_image_files

files = get_image_files(FOLDER)
told = {"item_tfms": Resize(224), "batch_tfms": aug_transforms(), "num_workers": 2}
dls = ImageDataLoaders.from_name_func(".", files, lambda name: name[0].isupper(), valid_pct=0.2, seed=42, **told)
""",
}

Measured = tuple[float, float]


def measure(command: list[str], until: str = "") -> Measured:
    """Seconds until a fresh process prints a line with `until` in it, or until it ends; and its peak memory in MiB when
    it prints that line, 0 without one."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = [(time.perf_counter() - begun, peak(process.pid)) for line in process.stdout if until and until in line]
    if process.wait() or (until and not found):
        raise SystemExit(f"{' '.join(command)} gave no answer (status {process.returncode})")
    return found[0] if until else (time.perf_counter() - begun, 0.0)


def peak(pid: int) -> float:
    """MiB. Not ru_maxrss: that of a child counts what this process, from which it was forked, had in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def commands(folder: Path, arch: str, photo: str) -> dict[str, tuple[list[str], str]]:
    """What is measured for a folder of `untrained`, by name: the command, and what its answer holds."""
    return {
        f"kit predict, {arch}": ([*KIT, "predict", str(folder / "bundle"), photo], photo),
        f"fastai, {arch}": ([sys.executable, "-c", FASTAI, str(folder / "export.pkl"), photo], photo),
    }


def first_batch(way: str, images: Path) -> tuple[list[str], str]:
    """The command that prints "batch" when it has one, and that word."""
    text = f"FOLDER = {str(images)!r}\n{FIRST_BATCH[way]}\nx, y = dls.train.one_batch()\nprint('batch', flush=True)"
    return [sys.executable, "-W", "ignore", "-c", text], "batch"


def in_turn(known: dict[str, tuple[list[str], str]], runs: int) -> dict[str, list[Measured]]:
    """Each command once to warm up, then `runs` times, in turn."""
    for command, until in known.values():
        measure(command, until)
    seen: dict[str, list[Measured]] = {name: [] for name in known}
    for _ in range(runs):
        for name, (command, until) in known.items():
            seen[name].append(measure(command, until))
    return seen


def main(
    bundle: Annotated[Path | None, typer.Option(help="measure this bundle alone")] = None,
    image: Annotated[Path | None, typer.Option(help="a photo; by default a drawing")] = None,
    images: Annotated[Path | None, typer.Option(help="photos for the first batch; by default drawings")] = None,
    runs: int = 7,
):
    """Print seconds and MiB for each command, and the ratio."""
    photo = str(image or sample(1)[0])
    quick = {"kit --help": ([*KIT, "--help"], ""), "import kit": ([sys.executable, "-c", "import kit"], "")}
    if bundle:
        own = {f"kit predict, {bundle}": ([*KIT, "predict", str(bundle), photo], photo)}
        return show(in_turn(own | quick, runs))
    with untrained(ARCHS[0], 224) as small, untrained(ARCHS[1], 224) as large:
        known = commands(small, ARCHS[0], photo) | commands(large, ARCHS[1], photo) | quick
        folder = images or Path(photo).parent
        known |= {f"{way}, first batch": first_batch(way, folder) for way in FIRST_BATCH}
        seen = in_turn(known, runs)
    show(seen)
    for answer in ("first batch", *ARCHS):
        ours = "kit" if answer == "first batch" else "kit predict"
        kit, fastai = (seen[f"{name}, {answer}"] for name in (ours, "fastai"))
        ratio = statistics.median(theirs / ours for (ours, _), (theirs, _) in zip(kit, fastai, strict=True))
        print(f"{ratio:.1f}x")


def show(seen: dict[str, list[Measured]]) -> None:
    """Print the table."""
    for name, values in seen.items():
        seconds, memory = ([value[place] for value in values] for place in (0, 1))
        print(f"{name:24} {spread(seconds)} s" + (f", {max(memory):.0f} MiB" if max(memory) else ""))


if __name__ == "__main__":
    script(main)
