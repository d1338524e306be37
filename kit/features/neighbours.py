"""Nearest neighbours by the cosine of features.

rows, cosines = nearest(features, 5)             # both (n, 5), nearest first
"""

import numpy as np

PAIRS_AT_ONCE = 8_000_000


def nearest(features: np.ndarray, count: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest other rows of each row of features (n, f), and the cosines: int and float32 (n, count).

    among: features (m, f) in which neighbours are searched instead; then a row is not left out as its own neighbour.
    All pairs are compared, in blocks, so that memory grows with n alone.
    """
    own = _directions(features)
    others = own if among is None else _directions(among)
    rows, cosines = np.empty((len(own), count), np.int64), np.empty((len(own), count), np.float32)
    step = max(1, PAIRS_AT_ONCE // max(1, len(others)))
    for start in range(0, len(own), step):
        block = own[start : start + step] @ others.T
        if among is None:
            block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        first = block.shape[1] - count
        best = np.argpartition(block, first, axis=1)[:, first:] if count else np.empty((len(block), 0), np.int64)
        near = np.take_along_axis(block, best, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        here = slice(start, start + len(block))
        rows[here], cosines[here] = np.take_along_axis(best, order, 1), np.take_along_axis(near, order, 1)
    return rows, cosines


def _directions(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
