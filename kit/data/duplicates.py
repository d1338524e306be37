"""Finding the same picture twice: equal files, and copies that were resized, recompressed or slightly brightened.

    pictures = np.stack([shrink(image) for image in images])
    groups(pictures, hashes(pictures), [kit.files.sha256(path) for path in paths])

Two pictures count as near duplicates when both hold:

- their perceptual hashes (64 bits of the discrete cosine transform) differ in at most `NEAR_BITS`;
- their colours, both shrunk to 32x32, differ by at most `NEAR_COLOURS` of 255 on average.

The hash alone would not do: it ignores colour, so that all plain colours have one hash.

What the limits rest on. Copies of 370 photos of pets (Oxford-IIIT), the largest distance and how many are found:

    resized to 50 or 75 %             2 bits    0.7 colour    100 %
    the same, and JPEG quality 50     2 bits    3.4 colour    100 %
    brightened by 3 %                 4 bits    4.7 colour    100 %
    brightened by 5 %                 6 bits    8.1 colour   99.5 %
    brightened by 10 %                6 bits   16.6 colour     21 %

Different pictures, the nearest two:

    those 370 photos                  14 bits; 27 in colour
    60,000 photos (CIFAR-10)          no pair within 4 bits and 8; the 18 pairs from 8 to 12 are copies to the eye
    400 drawings of flat shapes       within 4 bits: 46 in colour
    300 faces, own backgrounds        within 4 bits: more than 12 in colour

The price: among 300 drawings of one face on one background, which differ by 12 pixels of place and a shade of fur, 200
are grouped (119 at a limit of 6). And little but JPEG noise is there to hash in a flat drawing: 4 to 8 % of their JPEG
copies are missed, whatever the limit. A JPEG may be decoded small beforehand, but at 128 pixels a side or more: at 64,
2 of the 370 photos' copies are missed (6 to 8 bits), at 128 none (4 bits), at 256 it is as good as whole (2 bits).
"""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.fft import dctn

from kit.errors import ImageError

SIDE = 32
NEAR_BITS = 4
NEAR_COLOURS = 8
LOWEST = 8

# Sums of 3,072 differences are compared, not their means: whole numbers know no rounding.
_NEAR_SUM = NEAR_COLOURS * SIDE * SIDE * 3
_PAIRS_AT_ONCE = 1024
_PICTURES_AT_ONCE = 4096


def shrink(image: Image.Image) -> np.ndarray:
    """An RGB image of any size as the small picture that is compared: uint8 (32, 32, 3). `ImageError` for other modes.

    The hash is taken from it too, so that the large one is read only once.
    """
    if image.mode != "RGB":
        raise ImageError(
            f'an image of mode "{image.mode}" has no fingerprint; RGB was expected', fix='image.convert("RGB")'
        )
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0))


def greys(pictures: np.ndarray) -> np.ndarray:
    """Colours (..., 3) to grey levels, uint8, by ITU-R BT.601's weights, rounded as Pillow rounds them."""
    red, green, blue = (pictures[..., channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def hashes(pictures: np.ndarray) -> np.ndarray:
    """The perceptual hash, uint64 (n,), of small pictures, uint8 (n, 32, 32, 3).

    A bit says whether one of the 8 x 8 lowest frequencies is above their median. Source: C. Zauner, Implementation and
    benchmarking of perceptual image hash functions (2010); the same bits as `imagehash.phash` gives, many at a time.
    """
    return np.concatenate([np.empty(0, np.uint64), *map(_hashes, _some_at_a_time(pictures))])


def _some_at_a_time(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures in parts, so that what is worked out from them never fills the memory."""
    for start in range(0, len(pictures), _PICTURES_AT_ONCE):
        yield pictures[start : start + _PICTURES_AT_ONCE]


def _hashes(pictures: np.ndarray) -> np.ndarray:
    frequencies = dctn(greys(pictures).astype(np.float64), axes=(1, 2))[:, :LOWEST, :LOWEST].reshape(len(pictures), -1)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def groups(pictures: np.ndarray, hashed: np.ndarray, digests: Sequence[str]) -> list[list[int]]:
    """The indices of pictures that are the same file (equal digests) or near duplicates, two or more to a group.

    pictures: uint8 (n, 32, 32, 3), of `shrink`; hashed: uint64 (n,), of `hashes`; digests: one of each file.
    Being a duplicate is passed on: where A is near B and B near C, all three are one group. Groups and the indices in
    them ascend. Raises `ValueError` where the three differ in length.
    """
    if not len(pictures) == len(hashed) == len(digests):
        counts = f"{len(pictures)} pictures, {len(hashed)} hashes and {len(digests)} digests"
        raise ValueError(f"{counts}; expected one of each per picture")
    forest = _Forest(len(digests))
    _join_equal(forest, digests)
    _join_equal(forest, zip(hashed.tolist(), map(_digest, pictures), strict=True))
    _join_near(forest, pictures, hashed)
    return forest.groups()


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(picture), digest_size=16).digest()


class _Forest:
    """Sets of indices that can be joined (union-find); a set is known by its smallest index, its root."""

    def __init__(self, size: int):
        self.roots = np.arange(size)

    def root(self, index: int) -> int:
        while self.roots[index] != index:
            index = self.roots[index]
        return index

    def join(self, left: int, right: int) -> None:
        low, high = sorted((self.root(left), self.root(right)))
        self.roots[high] = low

    def settle(self) -> None:
        """Point every index straight at its root."""
        while not np.array_equal(self.roots, self.roots[self.roots]):
            self.roots = self.roots[self.roots]

    def groups(self) -> list[list[int]]:
        self.settle()
        members: dict[int, list[int]] = {}
        for index, root in enumerate(self.roots.tolist()):
            members.setdefault(root, []).append(index)
        return [group for group in members.values() if len(group) > 1]


def _join_equal(forest: _Forest, keys: Iterable[Hashable]) -> None:
    first: dict[Hashable, int] = {}
    for index, key in enumerate(keys):
        forest.join(first.setdefault(key, index), index)


def _join_near(forest: _Forest, pictures: np.ndarray, hashed: np.ndarray) -> None:
    """Join near duplicates, comparing one picture of each set known so far."""
    forest.settle()
    chosen = np.flatnonzero(forest.roots == np.arange(len(pictures)))
    if len(chosen) < 2:
        return
    known = _Pictures(pictures, hashed)
    for band in _bands(hashed):
        for left, right in known.candidates(chosen, band[chosen]):
            left, right = _apart(forest, left, right)
            near = known.near(left, right)
            for pair in zip(left[near], right[near], strict=True):
                forest.join(*pair)


def _apart(forest: _Forest, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are not in one set yet."""
    forest.settle()
    apart = forest.roots[left] != forest.roots[right]
    return left[apart], right[apart]


def _bands(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Cut 64 bits into NEAR_BITS + 1 bands: hashes that differ in NEAR_BITS bits share a band (pigeonhole)."""
    edges = [round(64 * band / (NEAR_BITS + 1)) for band in range(NEAR_BITS + 2)]
    for low, high in pairwise(edges):
        yield (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)


class _Pictures:
    """All pictures: `hashes` (n,), `colours` (n, 3072), their sums by channel (n, 3) and in all (n,)."""

    def __init__(self, pictures: np.ndarray, hashed: np.ndarray):
        self.hashes, self.colours = hashed, pictures.reshape(len(pictures), -1)
        self.channels = np.concatenate([some.sum((1, 2), dtype=np.int64) for some in _some_at_a_time(pictures)])
        self.brightness = self.channels.sum(axis=1)

    def candidates(self, chosen: np.ndarray, band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of the chosen (m,) of equal band (m,) and like brightness, each once, some at a time.

        Sorted by band and brightness, a picture's partners are its next neighbours: step 1 pairs each with its first,
        step 2 with its second, until none is in reach. So even thousands of plain colours, all of one hash, are
        compared only with those about as bright.
        """
        brightness = self.brightness[chosen]
        order = np.lexsort((brightness, band))
        place = np.arange(len(order))
        for step in range(1, len(order)):
            place = place[place + step < len(order)]
            left, right = order[place], order[place + step]
            in_reach = (band[left] == band[right]) & (brightness[right] - brightness[left] <= _NEAR_SUM)
            place = place[in_reach]
            if not len(place):
                return
            yield chosen[left[in_reach]], chosen[right[in_reach]]

    def near(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Which of the pairs are near duplicates, as booleans; what is cheap to compare goes first."""
        near = np.bitwise_count(self.hashes[left] ^ self.hashes[right]) <= NEAR_BITS
        for sums in (self.channels, self.colours):
            near[near] = _distances(sums, left[near], right[near]) <= _NEAR_SUM
        return near


def _distances(values: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The summed absolute differences between rows; those of channel sums are never larger than those of the pixels."""
    distances = np.empty(len(left), dtype=np.int64)
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        rows = slice(start, start + _PAIRS_AT_ONCE)
        differences = values[left[rows]].astype(np.int64) - values[right[rows]]
        distances[rows] = np.abs(differences).sum(axis=1)
    return distances
