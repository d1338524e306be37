"""Probabilities that mean what they say: a temperature, and how far stated and observed accuracy lie apart.

calibrate(result.probabilities, truth).temperature        # 1.4: the network was too sure of itself

Of all images that a calibrated model calls 80 % sure, 80 % are right. Networks are mostly surer than that; dividing
their logits by one number, the temperature, mends most of it and changes no top class.
Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017. Needs numpy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FEWEST = 20
RANGE = (0.1, 10.0)
SEARCH_STEPS = 40
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on `n` images, and the expected calibration error (0 to 1) without and with one.

    error_after is cross-fitted: each image is judged with a temperature that was fitted without it. Where that does
    not help, the temperature is 1 and the probabilities stay as they are.
    """

    temperature: float
    error_before: float
    error_after: float
    n: int

    def __str__(self) -> str:
        errors = f"expected calibration error {self.error_before:.4f} before, {self.error_after:.4f} after"
        return f"temperature {self.temperature:.2f}; {errors} (cross-fitted, n={self.n})"


def calibrate(probabilities: np.ndarray, truth: np.ndarray, folds: int = 5, seed: int = 0) -> Calibration:
    """Fit a temperature on all images, and measure it honestly: on images that did not fit it.

    probabilities: (n, classes), rows that add up to 1; truth: (n,) class indices. The folds are drawn with `seed`, each
    class spread evenly over them. Raises `ValueError` for shapes, indices or values that cannot be such.
    """
    probabilities, truth = _checked(probabilities, truth)
    if folds < 2:
        raise ValueError(f"folds={folds}; expected 2 or more: one part fits, another judges")
    sides = _folds(truth, folds, seed)
    after = np.empty_like(probabilities)
    for side in range(folds):
        held, rest = sides == side, sides != side
        temperature = fit_temperature(probabilities[rest], truth[rest]) if rest.any() else 1.0
        after[held] = calibrated(probabilities[held], temperature)
    error_before, error_after = calibration_error(probabilities, truth), calibration_error(after, truth)
    temperature = fit_temperature(probabilities, truth) if error_after < error_before else 1.0
    return Calibration(temperature, error_before, error_after, len(truth))


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log(probabilities) / temperature), (n, classes) float64: the same classes on top, more or less sure.

    Above 1 it makes less sure. Dividing the logits gives the same, for a softmax forgets what log adds to a row; a
    probability that was rounded to 0 counts as float32's smallest. Raises `ValueError` for a temperature of 0 or less.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature={temperature}; expected a number above 0, such as 1.5")
    return np.exp(_log_softmax(_logs(probabilities) / temperature))


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature from 0.1 to 10 with the least cross entropy on these images; 1.0 where they cannot tell.

    probabilities: (n, classes); truth: (n,) class indices. They cannot tell where there are fewer than 20, for then the
    temperature hangs on a mistake or two; nor where all are right, for then the least loss is at boundless sureness.
    """
    probabilities, truth = _checked(probabilities, truth)
    if len(truth) < FEWEST or (probabilities.argmax(1) == truth).all():
        return 1.0
    logs, rows = _logs(probabilities), np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(_log_softmax(logs / np.exp(log_temperature))[rows, truth].mean())

    return float(np.exp(_lowest(loss, *np.log(RANGE))))


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error, 0 to 1: how far confidence and accuracy lie apart, weighted over the images.

    Confidence is the top class's probability, cut into `bins` of equal width; in each, |accuracy - mean confidence|.
    With few images it is above 0 even for perfect probabilities, by chance: compare it at equal n only.
    """
    probabilities, truth = _checked(probabilities, truth)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # In each bin, n times |accuracy - confidence| is the absolute sum of the differences.
    return float(np.abs(np.bincount(places, right - confidence, bins)).sum() / len(truth))


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley between low and high is lowest, by golden section (J. Kiefer, 1953)."""
    part = (np.sqrt(5) - 1) / 2
    for _ in range(SEARCH_STEPS):
        left, right = high - part * (high - low), low + part * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return (low + high) / 2


def _folds(truth: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image (n,): shuffled, sorted by class, and dealt out like cards."""
    shuffled = np.random.default_rng(seed).permutation(len(truth))
    order = shuffled[np.argsort(truth[shuffled], kind="stable")]
    sides = np.empty(len(truth), dtype=int)
    sides[order] = np.arange(len(truth)) % folds
    return sides


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _checked(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1] or not truth.size:
        raise ValueError(f"shapes {probabilities.shape} and {truth.shape}; expected (n, classes) and (n,), n above 0")
    last = probabilities.shape[1] - 1
    if truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() > last:
        raise ValueError(f"truth holds {truth.min()} to {truth.max()}; expected class indices, 0 to {last}")
    if not np.allclose(probabilities.sum(1), 1, atol=1e-3) or probabilities.min() < 0:
        raise ValueError("rows of probabilities do not add up to 1; give them after the softmax, not logits")
    return probabilities, truth
