"""How long `kit check` takes for many small files, and what the image loader's care costs. Run by hand.

python tests/bench/check.py --count 100000
python tests/bench/check.py --count 0 --photos FOLDER

The files are small JPEGs of speckles, no two alike, made first. Printed are the seconds and the most private memory of
the command, as a process of its own; then the loader's time over that of Pillow alone, on the same files.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kit.cli.script import script
from kit.data.images import open_image
from kit.data.listing import list_images

SIDE, CLASSES, PAIRS = 32, 10, 7


def make_files(folder: Path, count: int) -> None:
    """FOLDER/CLASS/NUMBER.jpg."""
    dice = np.random.default_rng(0)
    for number in range(count):
        place = folder / str(number % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(dice.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        fine = Image.fromarray(dice.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        Image.blend(coarse, fine, 0.3).save(place / f"{number}.jpg")


def private_memory(pid: int | str) -> float:
    """MB that belong to a process and those it started alone, and to no file."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1000
    return own + sum(map(private_memory, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def run_check(folder: Path) -> tuple[float, float]:
    """Seconds and the most private memory (MB) of `kit check`, its processes included."""
    begun, most = time.perf_counter(), 0.0
    command = subprocess.Popen([sys.executable, "-m", "kit.cli.main", "check", str(folder)], stderr=subprocess.DEVNULL)
    ended = threading.Event()
    threading.Thread(target=lambda: (command.wait(), ended.set())).start()
    while not ended.wait(0.05):
        try:
            most = max(most, private_memory(command.pid))
        except (OSError, StopIteration):
            continue
    return time.perf_counter() - begun, most


def plain(path: Path) -> Image.Image:
    """Pillow alone, decoding as small as the loader does."""
    image = Image.open(path)
    image.draft(None, (448, 448))
    return image.convert("RGB")


def seconds(load, paths) -> float:
    begun = time.perf_counter()
    for path in paths:
        load(path)
    return time.perf_counter() - begun


def main(count: int = 100_000, photos: Path | None = None):
    """Print the figures."""
    with tempfile.TemporaryDirectory() as place:
        if count:
            make_files(Path(place), count)
            taken, memory = run_check(Path(place))
            print(f"kit check, {count:,} files: {taken:.1f} s, at most {memory:.0f} MB of its own and its processes'")
        paths = list_images(photos or Path(place))[0][:500]
        pairs = [(seconds(lambda p: open_image(p, at_least=224), paths), seconds(plain, paths)) for _ in range(PAIRS)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"the loader / Pillow alone, {len(paths)} files, median of {PAIRS} pairs: {ratio:.2f}x")


if __name__ == "__main__":
    script(main)
