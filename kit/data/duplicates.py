"""Find duplicate images: equal files, and near duplicates (resized, recompressed or slightly brightened copies).

    pictures = np.stack([shrink(image) for image in images])
    groups(pictures, hashes(pictures), [kit.files.sha256(path) for path in paths])

Two images are near duplicates when both conditions hold:

- their perceptual hashes (64 bits of the discrete cosine transform) differ in at most `NEAR_BITS`;
- their pixels, after resizing to 32x32, differ by at most `NEAR_COLOURS` of 255 on average.

The hash alone is not enough: it ignores colour, so that all plain colours have the same hash.

The limits come from measurements. Copies of 370 photos of pets (Oxford-IIIT), largest distance and share found:

    resized to 50 or 75 %             2 bits    0.7 colour    100 %
    the same, and JPEG quality 50     2 bits    3.4 colour    100 %
    brightened by 3 %                 4 bits    4.7 colour    100 %
    brightened by 5 %                 6 bits    8.1 colour   99.5 %
    brightened by 10 %                6 bits   16.6 colour     21 %

Different images, the nearest pair:

    those 370 photos                  14 bits; 27 in colour
    60,000 photos (CIFAR-10)          no pair within 4 bits and 8; the 18 pairs from 8 to 12 are visibly copies
    400 drawings of flat shapes       within 4 bits: 46 in colour
    300 faces, own backgrounds        within 4 bits: more than 12 in colour

False positives: of 300 drawings of one face on one background, which differ by a shift of 12 pixels and a shade of fur,
200 are grouped (119 at a limit of 6). False negatives: the hash of a flat drawing depends mostly on JPEG noise, and 4
to 8 % of JPEG copies are missed at any limit. A JPEG may be decoded at reduced size of 128 pixels a side or more: at 64
pixels 2 of the 370 photos' copies are missed (6 to 8 bits), at 128 none (4 bits), and at 256 the result is that of full
size (2 bits).
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kit.errors import ImageError

SIDE = 32
NEAR_BITS = 4
NEAR_COLOURS = 8
LOWEST = 8

# Sums of 3,072 differences are compared instead of means, because integers have no rounding errors.
_NEAR_SUM = NEAR_COLOURS * SIDE * SIDE * 3
_PAIRS_AT_ONCE = 1024
_PICTURES_AT_ONCE = 4096


def shrink(image: Image.Image) -> np.ndarray:
    """An RGB image resized for comparison and hashing: uint8 (32, 32, 3). `ImageError` for other modes."""
    if image.mode != "RGB":
        raise ImageError(
            f'an image of mode "{image.mode}" has no fingerprint; RGB was expected', fix='image.convert("RGB")'
        )
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0))


def greys(pictures: np.ndarray) -> np.ndarray:
    """RGB (..., 3) to grey levels, uint8, by the weights of ITU-R BT.601, rounded as in Pillow."""
    red, green, blue = (pictures[..., channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def hashes(pictures: np.ndarray) -> np.ndarray:
    """The perceptual hash, uint64 (n,), of images of `shrink`, uint8 (n, 32, 32, 3).

    A bit is 1 where one of the 8 x 8 lowest frequencies is above their median. Source: C. Zauner, Implementation and
    benchmarking of perceptual image hash functions (2010); the same bits as `imagehash.phash`, for many images at once.
    """
    return np.concatenate([np.empty(0, np.uint64), *map(_hashes, _some_at_a_time(pictures))])


def _some_at_a_time(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """The images in chunks, to limit memory."""
    for start in range(0, len(pictures), _PICTURES_AT_ONCE):
        yield pictures[start : start + _PICTURES_AT_ONCE]


def _hashes(pictures: np.ndarray) -> np.ndarray:
    frequencies = dctn(greys(pictures).astype(np.float64), axes=(1, 2))[:, :LOWEST, :LOWEST].reshape(len(pictures), -1)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def groups(pictures: np.ndarray, hashed: np.ndarray, digests: Sequence[str]) -> list[list[int]]:
    """Groups of two or more indices of equal files (equal digests) or near duplicates.

    pictures: uint8 (n, 32, 32, 3), of `shrink`. hashed: uint64 (n,), of `hashes`. digests: one of each file. Groups are
    transitive: if A is near B and B near C, all three are one group. Groups and their indices are in ascending order.
    Raises `ValueError` where the three differ in length.
    """
    if not len(pictures) == len(hashed) == len(digests):
        counts = f"{len(pictures)} pictures, {len(hashed)} hashes and {len(digests)} digests"
        raise ValueError(f"{counts}; expected one of each per picture")
    sets = np.arange(len(digests))
    pixels = [f"{number} {_digest(picture)}" for number, picture in zip(hashed.tolist(), pictures, strict=True)]
    for keys in (list(digests), pixels):
        _, first, same = np.unique(keys, return_index=True, return_inverse=True)
        sets = join_sets(sets, np.arange(len(keys)), first[same])
    members: dict[int, list[int]] = {}
    for index, label in enumerate(_join_near(sets, pictures, hashed).tolist()):
        members.setdefault(label, []).append(index)
    return [group for group in members.values() if len(group) > 1]


def _digest(picture: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(picture), digest_size=16).hexdigest()


def join_sets(sets: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The number of the set of each index (n,), 0 to n - 1, after joining the sets of each pair of indices."""
    links = coo_array((np.ones(len(left), bool), (sets[left], sets[right])), shape=(len(sets), len(sets)))
    return connected_components(links, directed=False)[1][sets]


def _join_near(sets: np.ndarray, pictures: np.ndarray, hashed: np.ndarray) -> np.ndarray:
    """Join the sets of near duplicates, comparing one image of each set."""
    _, chosen = np.unique(sets, return_index=True)
    if len(chosen) < 2:
        return sets
    known = _Pictures(pictures, hashed)
    for band in _bands(hashed):
        for left, right in known.candidates(chosen, band[chosen]):
            apart = sets[left] != sets[right]
            left, right = left[apart], right[apart]
            near = known.near(left, right)
            if near.any():
                sets = join_sets(sets, left[near], right[near])
    return sets


def _bands(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Cut 64 bits into NEAR_BITS + 1 bands: hashes that differ in NEAR_BITS bits share a band (pigeonhole)."""
    edges = [round(64 * band / (NEAR_BITS + 1)) for band in range(NEAR_BITS + 2)]
    for low, high in pairwise(edges):
        yield (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)


class _Pictures:
    """All images: `hashes` (n,), `colours` (n, 3072), their sums by channel (n, 3) and over all channels (n,)."""

    def __init__(self, pictures: np.ndarray, hashed: np.ndarray):
        self.hashes, self.colours = hashed, pictures.reshape(len(pictures), -1)
        self.channels = np.concatenate([some.sum((1, 2), dtype=np.int64) for some in _some_at_a_time(pictures)])
        self.brightness = self.channels.sum(axis=1)

    def candidates(self, chosen: np.ndarray, band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Chunks of pairs of `chosen` (m,) with equal band (m,) and similar brightness, each pair once.

        After sorting by band and brightness the candidates for an image are its next neighbours: step 1 pairs each with
        its first neighbour, step 2 with its second, until none is similar. So even thousands of plain colours, which
        have the same hash, are compared only with those of similar brightness.
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
        """Whether each pair is a near duplicate, bool; the cheapest comparisons are made first."""
        near = np.bitwise_count(self.hashes[left] ^ self.hashes[right]) <= NEAR_BITS
        for sums in (self.channels, self.colours):
            near[near] = _distances(sums, left[near], right[near]) <= _NEAR_SUM
        return near


def _distances(values: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sums of absolute differences of rows; that of channel sums is a lower bound for that of pixels."""
    distances = np.empty(len(left), dtype=np.int64)
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        rows = slice(start, start + _PAIRS_AT_ONCE)
        differences = values[left[rows]].astype(np.int64) - values[right[rows]]
        distances[rows] = np.abs(differences).sum(axis=1)
    return distances
