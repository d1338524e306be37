"""Scores of predictions of several classes an image, and of numbers; numpy alone.

mean_f1(probabilities > 0.5, truth)             # 0.81
"""

import numpy as np


def f1(right: np.ndarray, said: np.ndarray, there: np.ndarray) -> np.ndarray:
    """F1, the harmonic mean of precision and recall, of counts: 2 right / (said + there); NaN where both are 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * right / (said + there)


def mean_f1(said: np.ndarray, there: np.ndarray) -> float:
    """The mean F1 of the classes: said, there (images, classes), 0 or 1. A class that is neither counts 0."""
    said, there = said.astype(bool), there.astype(bool)
    return float(np.nan_to_num(f1((said & there).sum(0), said.sum(0), there.sum(0))).mean())


def average_precision(scores: np.ndarray, there: np.ndarray) -> float:
    """The area below the steps of precision over recall (n,); NaN where the class is nowhere.

    Images of equal score count together: sum over the distinct scores of (R_k - R_k-1) P_k.
    """
    there = there.astype(bool)
    if not there.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits, sorted_scores = np.cumsum(there[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)  # the last image of each distinct score
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


def mean_average_precision(scores: np.ndarray, there: np.ndarray) -> float:
    """The mean of the classes' average precision; what is nowhere stays out. scores, there: (images, classes)."""
    found = [average_precision(scores[:, place], there[:, place]) for place in range(there.shape[1])]
    return float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")


def mae(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mean absolute error of each target: numbers, truth (images, targets) -> (targets,), in the target's unit."""
    return np.abs(numbers - truth).mean(0)


def rmse(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The root of the mean squared error of each target, in the target's unit."""
    return np.sqrt(np.square(numbers - truth).mean(0))


def r2(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The share of each target's variance that the numbers explain: 1 is all, 0 what the mean would; it may be below.

    NaN where the truth does not vary.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - np.square(numbers - truth).sum(0) / np.square(truth - truth.mean(0)).sum(0) * _varies(truth)


def _varies(truth: np.ndarray) -> np.ndarray:
    return np.where(np.ptp(truth, axis=0) > 0, 1.0, np.nan)
