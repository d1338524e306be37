"""From which probability on a class is said, where an image may have several: fitted, and measured honestly.

fit_thresholds(probabilities, truth).values         # [0.31, 0.62]: where F1 of each class is highest

Source of the rule: the F1-best threshold of each class on held-out images (Lipton, Elkan, Naryanaswamy, Optimal
thresholding of classifiers to maximize F1 measure, ECML 2014). Needs numpy alone.
"""

from dataclasses import dataclass

import numpy as np

from kit import scores
from kit.tasks.text import HALF

FEWEST = 10


@dataclass(frozen=True)
class Thresholds:
    """A threshold for each class, and the mean F1 (0 to 1) at a half and with fitted ones, of `n` images.

    f1_after is cross-fitted: each image is judged by thresholds that were fitted without it. Where that does not help,
    all are a half.
    """

    values: list[float]
    f1_before: float
    f1_after: float
    n: int


def fit_thresholds(probabilities: np.ndarray, truth: np.ndarray, folds: int = 5, seed: int = 0) -> Thresholds:
    """Fit a threshold for each class on all images, and measure them on images that did not fit them.

    probabilities, truth: (images, classes). The folds are drawn with `seed`.
    """
    truth = np.asarray(truth, bool)
    side = np.random.default_rng(seed).permutation(len(truth)) % folds
    said = np.zeros_like(truth)
    for number in range(folds):
        held, rest = side == number, side != number
        said[held] = probabilities[held] >= _best(probabilities[rest], truth[rest])
    before, after = scores.mean_f1(probabilities >= HALF, truth), scores.mean_f1(said, truth)
    values = _best(probabilities, truth) if after > before else np.full(truth.shape[1], HALF)
    return Thresholds([float(value) for value in values], before, after, len(truth))


def _best(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.array([best_threshold(probabilities[:, place], truth[:, place]) for place in range(truth.shape[1])])


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the highest F1 of one class, half way between two probabilities; of several the nearest to a
    half. A half where fewer than 10 images have the class: so few would set it by chance. probabilities, truth: (n,).
    """
    if truth.sum() < FEWEST:
        return HALF
    order = np.argsort(-probabilities, kind="stable")
    sorted_down, right = probabilities[order], np.cumsum(truth[order])
    found = scores.f1(right, np.arange(1, len(truth) + 1), truth.sum())
    below = np.append(sorted_down[1:], 0.0)
    found[sorted_down == below] = -1  # between equal probabilities nothing can be cut
    best = np.flatnonzero(found >= found.max() - 1e-12)
    cuts = (sorted_down + below)[best] / 2
    return float(cuts[np.abs(cuts - HALF).argmin()])
