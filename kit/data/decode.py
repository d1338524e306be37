"""Decode images once for a training: to memory where they are few, to a file on disk where they are many.

images = decode_images(paths, ForTraining(224, "crop"))        # images[3]: uint8 (height, width, 3)

The file is in kit's cache. Its name is a hash of the images' hashes and of their preparation, so that a changed image
gives another file. It is written atomically.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kit.console import progress, say
from kit.data.images import FILTER, open_image, square
from kit.data.scan import CHANGED, SCAN_AGAIN, changes
from kit.errors import ImageError, OutputError
from kit.files import atomic_path, cache_folder
from kit.machine import core_count

FOLDER = "decoded"
MAX_MEMORY = 100_000_000
MAX_DISK = 20_000_000_000
SPARE_DISK = 2_000_000_000
TRIED, AHEAD = 16, 64
END, PAIR = 8, 16  # bytes of the count at the end of the file, and of each image's height and width before it
VERSION = 1


@dataclass(frozen=True)
class ForTraining:
    """Preparation of training images: resized so that a square of `size` pixels can be cropped at random positions."""

    size: int
    how: str

    def __call__(self, path: str) -> np.ndarray:
        """uint8 (height, width, 3)."""
        image = open_image(path, self.size)
        if self.how == "squish":
            return np.asarray(image.resize((self.size, self.size), FILTER))
        sides = min(image.size) if self.how == "crop" else max(image.size)
        scaled = [max(1, round(side * self.size / sides)) for side in image.size]
        return np.asarray(image.resize(scaled, FILTER))


@dataclass(frozen=True)
class ForPrediction:
    """Preparation of all other images: the square that a bundle predicts."""

    size: int
    how: str
    at_least: int

    def __call__(self, path: str) -> np.ndarray:
        """uint8 (size, size, 3)."""
        return np.asarray(square(open_image(path, self.at_least), self.size, self.how))


Preparation = ForTraining | ForPrediction


class DecodedImages:
    """Decoded images by index, each uint8 (height, width, 3). where: "memory", or the path of their file."""

    def __init__(self, pixels: np.ndarray, sizes: np.ndarray, where: str, starts: np.ndarray | None = None):
        self.pixels, self.sizes, self.where = pixels, sizes, where
        self.starts = np.cumsum(sizes.prod(1) * 3) - sizes.prod(1) * 3 if starts is None else starts

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, number: int) -> np.ndarray:
        start, (height, width) = self.starts[number], self.sizes[number]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def part(self, numbers: Sequence[int]) -> "DecodedImages":
        """The images at these indices; no pixel is copied."""
        return DecodedImages(self.pixels, self.sizes[numbers], self.where, self.starts[numbers])


def decode_images(
    paths: Sequence[str], prepare: Preparation, hashes: Sequence[str] | None = None, where: str = "auto"
) -> DecodedImages | None:
    """The images at `paths`, decoded by one thread a core; None where they fit neither in memory nor on disk.

    hashes: the files' SHA-256, for the name of the cache file; by default their paths, sizes and times. where:
    "memory", "disk", or "auto": up to 100 MB in memory, more on disk. Raises `ImageError` for an unreadable image.
    """
    if not paths:
        return None
    file = cache_file(paths, prepare, hashes)
    if where != "memory" and (found := open_cache_file(file)):
        return found
    if where == "memory":
        return _in_memory(paths, prepare, hashes)
    needed = _estimate(paths, prepare)
    if where == "auto" and needed <= MAX_MEMORY:
        return _in_memory(paths, prepare, hashes)
    if not make_room(needed):
        limits = f"{needed / 1e9:.1f} GB, or more than {MAX_DISK / 1e9:.0f} GB in all"
        say(f"note: the disk has no room for {len(paths)} decoded images ({limits}): they are decoded in each epoch")
        return None
    try:
        return _on_disk(paths, prepare, hashes, file)
    except (OSError, OutputError) as error:
        reason = error.problem if isinstance(error, OutputError) else error.strerror
        say(f"note: the disk would not take the decoded images ({reason}): they are decoded in each epoch")
        return None


def make_room(needed: float) -> bool:
    """Whether `needed` more bytes fit into the cache, after removing the least recently used files."""
    folder = cache_folder() / FOLDER
    there = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    files = cache_files()
    with suppress(OSError):  # a read-only cache
        while files and needed + sum(size for _, size in files) > MAX_DISK:
            files.pop()[0].unlink(missing_ok=True)
    return needed <= min(MAX_DISK, shutil.disk_usage(there).free - SPARE_DISK)


def _estimate(paths: Sequence[str], prepare: Preparation) -> float:
    """An estimate of the bytes of all images, from a sample."""
    some = paths[:: -(-len(paths) // TRIED)]
    return len(paths) * float(np.mean([one.nbytes for one in map_ahead(prepare, some)]))


def map_ahead(prepare: Callable[[Any], np.ndarray], items: Iterable) -> Iterator[np.ndarray]:
    """The prepared images of `items` in order, computed by threads up to 64 images ahead.

    Threads suffice, because Pillow releases Python's global lock while decoding.
    """
    left = iter(items)
    with ThreadPoolExecutor(core_count()) as pool:
        waiting = deque(pool.submit(prepare, item) for item in islice(left, AHEAD))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting += [pool.submit(prepare, item) for item in islice(left, 1)]
        finally:
            pool.shutdown(cancel_futures=True)


def _check_unchanged(paths: Sequence[str], hashes: Sequence[str] | None) -> None:
    """Raise `ImageError` for an image that was replaced, after all were decoded: its pixels may be those of another."""
    for path, change in changes(paths, hashes or []).items() if hashes else ():
        if change == CHANGED:
            raise ImageError(f"{path} {change}", fix=SCAN_AGAIN)


def _in_memory(paths: Sequence[str], prepare: Preparation, hashes: Sequence[str] | None) -> DecodedImages:
    images: list[np.ndarray | None] = list(map_ahead(prepare, paths))
    _check_unchanged(paths, hashes)
    sizes = np.array([one.shape[:2] for one in images], dtype=np.int64)
    pixels, end = np.empty(int(sizes.prod(1).sum()) * 3, np.uint8), 0
    for number, image in enumerate(images):
        pixels[end : end + image.size] = image.reshape(-1)
        end, images[number] = end + image.size, None  # so that at most one image exists twice
    return DecodedImages(pixels, sizes, "memory")


def _on_disk(
    paths: Sequence[str], prepare: Preparation, hashes: Sequence[str] | None, file: Path
) -> DecodedImages | None:
    """Write image by image, so that only a few are in memory, then all heights and widths, then their count."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sizes = []
    with atomic_path(file) as partial, partial.open("wb") as stream:
        for image in progress(map_ahead(prepare, paths), "decode", total=len(paths)):
            stream.write(image.tobytes())
            sizes.append(image.shape[:2])
        stream.write(np.array(sizes, np.int64).tobytes())
        stream.write(np.int64(len(sizes)).tobytes())
        _check_unchanged(paths, hashes)
    return open_cache_file(file)


def open_cache_file(file: Path) -> DecodedImages | None:
    """The images of a cache file, memory-mapped; None where it is missing or its length does not match its content."""
    if not file.is_file() or file.stat().st_size < END:
        return None
    everything = np.memmap(file, np.uint8, mode="r")
    count = int(everything[-END:].view(np.int64)[0])
    end = len(everything) - END - PAIR * count
    if count < 1 or end < 0:
        return None
    sizes = np.frombuffer(everything[end:-END].tobytes(), np.int64).reshape(count, 2)
    if int(sizes.prod(1).sum()) * 3 != end:
        return None
    with suppress(OSError):  # a read-only cache
        os.utime(file)
    return DecodedImages(everything[:end], sizes, str(file))


def cache_file(paths: Sequence[str], prepare: Preparation, hashes: Sequence[str] | None = None) -> Path:
    """The path of the cache file for these images."""
    if hashes is None:
        facts = [Path(path).stat() for path in paths]
        hashes = [f"{path} {one.st_size} {one.st_mtime_ns}" for path, one in zip(paths, facts, strict=True)]
    key = [VERSION, Image.__version__, type(prepare).__name__, asdict(prepare), list(hashes)]
    return cache_folder() / FOLDER / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.images"


def cache_files() -> list[tuple[Path, int]]:
    """The files of decoded images in the cache with their sizes in bytes, most recently used first."""
    files = [(path, path.stat()) for path in (cache_folder() / FOLDER).glob("*.images")]
    return [(path, facts.st_size) for path, facts in sorted(files, key=lambda one: -one[1].st_mtime)]
