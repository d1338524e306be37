"""The probability from which each class is predicted, where an image may have several classes.

fit_thresholds(probabilities, truth).values         # [0.31, 0.62]: where F1 of each class is highest

The threshold of a class is the one with the highest F1 on held-out images (Lipton, Elkan, Naryanaswamy, Optimal
thresholding of classifiers to maximize F1 measure, ECML 2014). Needs NumPy alone.
"""

from dataclasses import dataclass

import numpy as np

from kit import scores
from kit.tasks.text import HALF

FEWEST = 10


@dataclass(frozen=True)
class Thresholds:
    """A threshold for each class, and the mean F1 (0 to 1) of `n` images at 0.5 (before) and at the thresholds (after).

    f1_after is cross-fitted: the thresholds for an image were fitted without it. Where it is not above f1_before, all
    thresholds are 0.5.
    """

    values: list[float]
    f1_before: float
    f1_after: float
    n: int


def fit_thresholds(probabilities: np.ndarray, truth: np.ndarray, folds: int = 5, seed: int = 0) -> Thresholds:
    """Fit a threshold for each class on all images, and measure by cross-fitting what they gain.

    probabilities, truth: (images, classes). The folds are drawn with `seed`.
    """
    truth = np.asarray(truth, bool)
    side = np.random.default_rng(seed).permutation(len(truth)) % folds
    predicted = np.zeros_like(truth)
    for number in range(folds):
        held, rest = side == number, side != number
        predicted[held] = probabilities[held] >= _best(probabilities[rest], truth[rest])
    before, after = scores.mean_f1(probabilities >= HALF, truth), scores.mean_f1(predicted, truth)
    values = _best(probabilities, truth) if after > before else np.full(truth.shape[1], HALF)
    return Thresholds([float(value) for value in values], before, after, len(truth))


def _best(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.array([best_threshold(probabilities[:, place], truth[:, place]) for place in range(truth.shape[1])])


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the highest F1 of one class, half way between two probabilities.

    Of several, the nearest to 0.5. 0.5 where fewer than 10 images have the class. probabilities, truth: (n,).
    """
    if truth.sum() < FEWEST:
        return HALF
    order = np.argsort(-probabilities, kind="stable")
    sorted_down, right = probabilities[order], np.cumsum(truth[order])
    found = scores.f1(right, np.arange(1, len(truth) + 1), truth.sum())
    below = np.append(sorted_down[1:], 0.0)
    found[sorted_down == below] = -1  # no threshold lies between equal probabilities
    best = np.flatnonzero(found >= found.max() - 1e-12)
    cuts = (sorted_down + below)[best] / 2
    return float(cuts[np.abs(cuts - HALF).argmin()])
