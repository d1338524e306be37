"""Metrics in NumPy: F1 and average precision for several classes per image; MAE, RMSE and R2 for numbers.

mean_f1(probabilities > 0.5, truth)             # 0.81
"""

import numpy as np


def f1(correct: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """F1 from counts: 2 correct / (predicted + actual), the harmonic mean of precision and recall; NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * correct / (predicted + actual)


def mean_f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Macro F1. predicted, truth: (images, classes), 0 or 1. A class that is never predicted nor true counts as 0."""
    predicted, truth = predicted.astype(bool), truth.astype(bool)
    return float(np.nan_to_num(f1((predicted & truth).sum(0), predicted.sum(0), truth.sum(0))).mean())


def average_precision(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision of each class: probabilities, truth (images, classes) -> (classes,).

    NaN where no image has the class.
    """
    from sklearn.metrics import average_precision_score

    classes = zip(truth.astype(bool).T, probabilities.T, strict=True)
    return np.array([average_precision_score(*one) if one[0].any() else np.nan for one in classes])


def mean_average_precision(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean average precision of the classes that some image has; NaN where none has any."""
    return float(np.nanmean(average_precision(probabilities, truth))) if truth.any() else float("nan")


def mae(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute error: numbers, truth (images, targets) -> (targets,), in each target's unit."""
    return np.abs(numbers - truth).mean(0)


def rmse(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Root mean squared error: numbers, truth (images, targets) -> (targets,), in each target's unit."""
    return np.sqrt(np.square(numbers - truth).mean(0))


def r2(numbers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Coefficient of determination, 1 - residual variance / variance of the truth; (images, targets) -> (targets,).

    0 is as good as predicting the mean, negative values are worse; NaN where the truth is constant.
    """
    variance = np.where(np.ptp(truth, axis=0) > 0, np.square(truth - truth.mean(0)).mean(0), np.nan)
    return 1 - np.square(numbers - truth).mean(0) / variance
