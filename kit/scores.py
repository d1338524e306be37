"""Scores of predictions of several classes an image, and of numbers.

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


def average_precision(probabilities: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Each class's area below the steps of precision over recall; NaN where no image has the class.

    probabilities, there: (images, classes) -> (classes,).
    """
    from sklearn.metrics import average_precision_score

    there = there.astype(bool)
    columns = zip(there.T, probabilities.T, strict=True)
    return np.array([average_precision_score(truth, said) if truth.any() else np.nan for truth, said in columns])


def mean_average_precision(probabilities: np.ndarray, there: np.ndarray) -> float:
    """The mean of the classes' average precision, without classes that no image has; NaN where there is no other."""
    return float(np.nanmean(average_precision(probabilities, there))) if there.any() else float("nan")


def mae(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mean absolute error of each target: numbers, truth (images, targets) -> (targets,), in the target's unit."""
    return np.abs(numbers - truth).mean(0)


def rmse(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The root of the mean squared error of each target, in the target's unit."""
    return np.sqrt(np.square(numbers - truth).mean(0))


def r2(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The share of each target's variance that the numbers explain; 0 is what the mean would, and it may be below.

    NaN where the truth does not vary.
    """
    variance = np.where(np.ptp(truth, axis=0) > 0, np.square(truth - truth.mean(0)).mean(0), np.nan)
    return 1 - np.square(numbers - truth).mean(0) / variance
