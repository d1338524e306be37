"""Calibration of probabilities by temperature scaling, and the expected calibration error.

calibrate(result.probabilities, truth).temperature        # 1.4: above 1, the network was overconfident

Of all images that a calibrated model predicts with a probability of 80 %, 80 % are right. Most networks are
overconfident. Dividing the logits by one number, the temperature, corrects most of it and never changes the top class.
Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017. Fitting needs SciPy, applying
a temperature NumPy alone.
"""

from dataclasses import dataclass

import numpy as np

FEWEST = 20
SPREAD = 1.0  # of the prior of log(temperature); the docstring of `fit_temperature` says what it gains
RANGE = (0.1, 10.0)
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on `n` images, and the expected calibration error (0 to 1) without and with one.

    error_after is cross-fitted: the temperature for an image was fitted without it. Where it is not below error_before,
    the temperature is 1, which leaves the probabilities as they are.
    """

    temperature: float
    error_before: float
    error_after: float
    n: int

    def __str__(self) -> str:
        errors = f"expected calibration error {self.error_before:.4f} before, {self.error_after:.4f} after"
        return f"temperature {self.temperature:.2f}; {errors} (cross-fitted, n={self.n})"


def calibrate(probabilities: np.ndarray, truth: np.ndarray, folds: int = 5, seed: int = 0) -> Calibration:
    """Fit a temperature on all images, and measure by cross-fitting what it gains.

    probabilities: (n, classes), rows that add up to 1; truth: (n,) class indices. The folds are drawn with `seed`,
    stratified by class. Raises `ValueError` for wrong shapes, indices out of range or rows that do not add up to 1.
    """
    probabilities, truth = _checked(probabilities, truth)
    if folds < 2:
        raise ValueError(f"folds={folds}; expected 2 or more: one to fit, another to measure")
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
    """softmax(log(probabilities) / temperature), (n, classes) float64: the top classes stay the same.

    A temperature above 1 makes the probabilities less extreme. Dividing the logits gives the same, because a constant
    added to a row does not change its softmax. 0 is replaced by the smallest float32. Raises `ValueError` for a
    temperature of 0 or less.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature={temperature}; expected a number above 0, such as 1.5")
    return np.exp(_log_softmax(_logs(probabilities) / temperature))


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature from 0.1 to 10 that is most probable a posteriori, or 1.0 for fewer than 20 images.

    probabilities: (n, classes); truth: (n,) class indices. The prior of log(temperature) is normal with mean 0 and
    standard deviation 1. It decides where the images say little: without mistakes, cross entropy alone would give 0.1,
    which makes the next mistake a certainty. Measured on heads for 370 photos of pets, fitted on 20, 40 and 80 images
    and compared on others, it never has a higher cross entropy than without a prior: 0.007 against 0.019 for cats and
    dogs (without calibration 0.009), 0.71 against 0.75 for breeds (0.70), 3.38 against 3.39 for a network that is
    nearly always wrong (5.07), all for 20 images.
    """
    from scipy.optimize import minimize_scalar

    probabilities, truth = _checked(probabilities, truth)
    if len(truth) < FEWEST:
        return 1.0
    logs, rows = _logs(probabilities), np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        likelihood = _log_softmax(logs / np.exp(log_temperature))[rows, truth].sum()
        return (log_temperature / SPREAD) ** 2 / 2 - float(likelihood)

    found = minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error (ECE): the mean of |accuracy - mean confidence| over bins.

    It is from 0 to 1; bins are weighted by their images. Confidence is the probability of the top class, in `bins` of
    equal width. With few images the error is above 0 by
    chance even for perfect probabilities: compare it at equal n only.
    """
    probabilities, truth = _checked(probabilities, truth)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # In each bin, n times |accuracy - confidence| is the absolute sum of the differences.
    return float(np.abs(np.bincount(places, right - confidence, bins)).sum() / len(truth))


def _folds(truth: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image (n,): shuffled, sorted by class, then assigned in turn."""
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
