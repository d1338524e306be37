"""Find near copies that hashes miss: flipped, brightened, cropped, turned and recompressed images.

pairs = find_copies(nearest(features, 5), hashes, pictures)          # [(row, row, likeness), ...]

Candidates are images with similar features, and images whose perceptual hashes are similar after a quarter turn. A
candidate is a copy where the pixels can be aligned: one image, or its mirror image, is laid over each part of the other
and the normalised cross-correlation is computed. Measured with EfficientNet-Lite0's features of 370 Oxford Pets photos
(`tests/bench/clean.py`): correlations of copies are mostly above 0.9, of the 800 most similar pairs of different photos
at most 0.82.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from kit.data.duplicates import hashes as hashes_of

LEAST_COSINE = 0.75
TURNED_BITS = 8
MOST_TURNED = 20_000  # with more images, quarter turns are not looked for: all pairs of hashes are compared
MOST_PAIRS = 5_000
SIZES = (32, 29, 26)  # of the smaller image on the larger: crops of up to 20 %
SAME, SIMILAR, SIMILAR_COSINE = 0.85, 0.7, 0.88
SAMPLED, ALIKE_SHARE, ALIKE_MARGIN = 100, 0.95, 0.12

Pair = tuple[int, int, float]
Neighbours = tuple[np.ndarray, np.ndarray]


def find_copies(near: Neighbours, hashes: np.ndarray, pictures: np.ndarray) -> list[Pair]:
    """Pairs of rows that are copies of each other, with their correlation (0 to 1), most similar first.

    near: of `kit.features.neighbours.nearest`. hashes: uint64 (n,), and pictures: uint8 (n, 32, 32, 3), both of
    `kit.data.scan.scan_images`.
    """
    found, same = {}, max(SAME, _usual_correlation(pictures) + ALIKE_MARGIN)
    for left, right, cosine, turns in _candidates(near, hashes, pictures):
        likeness = _correlation(pictures[left], np.ascontiguousarray(np.rot90(pictures[right], turns)))
        if likeness >= same or (same == SAME and likeness >= SIMILAR and cosine >= SIMILAR_COSINE):
            found[left, right] = max(likeness, found.get((left, right), 0.0))
    return sorted(((*pair, likeness) for pair, likeness in found.items()), key=lambda pair: -pair[2])


def _usual_correlation(pictures: np.ndarray) -> float:
    """The correlation that one in 20 pairs of images exceeds: high where all are alike, as from one fixed camera."""
    if len(pictures) < 2:
        return 0.0
    pairs = np.random.default_rng(0).integers(0, len(pictures), (SAMPLED, 2))
    found = [_correlation(pictures[left], pictures[right]) for left, right in pairs if left != right]
    return float(np.quantile(found, ALIKE_SHARE)) if found else 0.0


def _candidates(near: Neighbours, hashes: np.ndarray, pictures: np.ndarray) -> Iterator[tuple[int, int, float, int]]:
    """Pairs of rows, the cosine of their features, and the quarter turns that may align them."""
    pairs = {
        (min(row, int(other)), max(row, int(other))): float(cosine)
        for row, (others, own) in enumerate(zip(*near, strict=True))
        for other, cosine in zip(others, own, strict=True)
        if cosine >= LEAST_COSINE
    }
    for (left, right), cosine in sorted(pairs.items(), key=lambda pair: -pair[1])[:MOST_PAIRS]:
        yield left, right, cosine, 0
    for turns in (1, 2, 3) if len(hashes) <= MOST_TURNED else ():
        turned = hashes_of(np.rot90(pictures, turns, axes=(1, 2)))
        for left, own in enumerate(hashes):
            for right in np.flatnonzero(np.bitwise_count(turned[left + 1 :] ^ own) <= TURNED_BITS):
                yield left, left + 1 + int(right), 0.0, turns


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The largest normalised cross-correlation of one image, or its mirror image, with any part of the other."""
    return max(
        _on_parts(large, small, size)
        for second in (other, np.ascontiguousarray(other[:, ::-1]))
        for large, small in ((one, second), (second, one))
        for size in SIZES
    )


def _on_parts(large: np.ndarray, small: np.ndarray, size: int) -> float:
    """The largest correlation of `small`, resized to `size` pixels a side, with the parts of `large` of that size."""
    resized = np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BILINEAR), np.float32)
    parts = np.lib.stride_tricks.sliding_window_view(large.astype(np.float32), (size, size), (0, 1))
    parts = parts.reshape(parts.shape[0] * parts.shape[1], -1)
    parts = parts - parts.mean(1, keepdims=True)
    wanted = resized.transpose(2, 0, 1).ravel()
    wanted = wanted - wanted.mean()
    scale = np.linalg.norm(parts, axis=1) * np.linalg.norm(wanted)
    return float((parts @ wanted / np.maximum(scale, 1.0)).max())
