"""How sure a number is: intervals for an error rate, for any statistic, and for the difference of two models.

wilson(8, 1478)                                  # 0.0054 (n=1478, 95 % 0.0027-0.0106)
paired(wrong_a, wrong_b).p                       # do two models differ, on the same images?

An error rate without its n and interval says little: 0 errors of 20 images still allow a true rate of 16 %.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import ceil, comb, sqrt
from statistics import NormalDist

import numpy as np

from kit.task import CLASSIFICATION

WIDEST = 0.1
DRAWS_AT_ONCE = 100


@dataclass(frozen=True)
class Estimate:
    """A value measured on `n` images, and the interval `low` to `high` that holds the true one at `confidence`."""

    value: float
    n: int
    low: float
    high: float
    confidence: float = 0.95

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        dash = "-" if self.low >= 0 else " to "
        return f"{self.value:.4f} (n={self.n}, {100 * self.confidence:g} % {self.low:.4f}{dash}{self.high:.4f})"

    __repr__ = __str__


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images: `difference` of error rates (a - b), and how it came about.

    only_a, only_b: images that only a, or only b, has wrong; p: of McNemar's exact test that the models err alike.
    """

    difference: Estimate
    only_a: int
    only_b: int
    p: float


def wilson(errors: int, n: int, confidence: float = 0.95) -> Estimate:
    """The rate `errors / n` with Wilson's score interval, which holds for few images and for no errors at all.

    With z the normal quantile: centre (errors + z^2/2) / (n + z^2), half width
    z / (n + z^2) * sqrt(errors (n - errors) / n + z^2/4).
    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212.
    Raises `ValueError` where n is not positive or errors lie outside 0 to n.
    """
    if n < 1:
        raise ValueError(f"n={n}; an error rate needs at least one image")
    if not 0 <= errors <= n:
        raise ValueError(f"errors={errors} of n={n}; expected 0 to {n}")
    low, high = _wilson_ends(errors / n, n, confidence)
    # Exact where the formula gives exactly 0 or 1: rounding would leave 1e-19 there.
    low, high = (0.0 if errors == 0 else low), (1.0 if errors == n else high)
    return Estimate(float(errors / n), int(n), low, high, confidence)


def bootstrap(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """`statistic(values)` with its percentile interval over `resamples` draws with replacement.

    values: (n,) or (n, ...), a row an image; statistic: takes such an array and returns one number.
    B. Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7 (1979), 1-26. The interval is too
    narrow for a few dozen images, and says nothing where all values are equal: for an error rate, take `wilson`.
    Raises `ValueError` where there are no values.
    """
    values = np.asarray(values)
    if not len(values):
        raise ValueError("no values; a bootstrap needs at least one")
    numbers = np.random.default_rng(seed)
    drawn = [float(statistic(values[numbers.integers(0, len(values), len(values))])) for _ in range(resamples)]
    tail = (1 - _checked(confidence)) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(float(statistic(values)), len(values), float(low), float(high), confidence)


def bootstrap_means(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The same for a statistic of means, which ten thousand images do not make slow: a draw is a matrix product.

    values: (n, k), a row an image; statistic: means (draws, k) -> (draws,). What is not finite in a draw is left out.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("no values; a bootstrap needs at least one")
    n, numbers = len(values), np.random.default_rng(seed)
    drawn = [
        statistic(numbers.multinomial(n, np.full(n, 1 / n), size=part) @ values / n)
        for part in [DRAWS_AT_ONCE] * (resamples // DRAWS_AT_ONCE) + [resamples % DRAWS_AT_ONCE]
    ]
    found = np.concatenate(drawn)
    found, tail = found[np.isfinite(found)], (1 - _checked(confidence)) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if len(found) else (np.nan, np.nan)
    return Estimate(float(statistic(values.mean(0)[None])[0]), n, float(low), float(high), confidence)


def paired(wrong_a: np.ndarray, wrong_b: np.ndarray, confidence: float = 0.95) -> Comparison:
    """Compare two models on the same images. wrong_a, wrong_b: booleans (n,), whether each model errs on each image.

    The interval is method 10 of R. G. Newcombe, Improved confidence intervals for the difference between binomial
    proportions based on paired data, Statistics in Medicine 17 (1998), 2635-2650: both Wilson intervals, joined by the
    correlation of the errors. The p value is two-sided and exact: Q. McNemar, Psychometrika 12 (1947), 153-157.
    Raises `ValueError` where the two differ in length or are empty.
    """
    wrong_a, wrong_b = np.asarray(wrong_a, dtype=bool), np.asarray(wrong_b, dtype=bool)
    if wrong_a.shape != wrong_b.shape or wrong_a.ndim != 1 or not wrong_a.size:
        raise ValueError(f"shapes {wrong_a.shape} and {wrong_b.shape}; expected (n,) twice, of one n above 0")
    only_a, only_b = int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum())
    both = int((wrong_a & wrong_b).sum())
    difference = _newcombe(both, only_a, only_b, len(wrong_a), confidence)
    return Comparison(difference, only_a, only_b, _mcnemar(only_a, only_b))


def pairs_needed(found: Comparison, power: float = 0.8, level: float = 0.05) -> int | None:
    """How many images McNemar's test needs to see a difference like the one found; None where nothing differs.

    With d the difference and s the share of images that only one model has wrong, and z the normal quantiles of the
    level (two-sided) and the power: n = (z_level sqrt(s) + z_power sqrt(s - d^2))^2 / d^2. Source: R. J. Connor, Sample
    size for testing differences in proportions for the paired-sample design, Biometrics 43 (1987), 207-211.
    """
    gap, n = found.difference.value, found.difference.n
    if not gap:
        return None
    share = (found.only_a + found.only_b) / n
    z_level, z_power = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(_checked(power))
    return ceil((z_level * sqrt(share) + z_power * sqrt(share - gap * gap)) ** 2 / gap**2)


def too_small(n: int, widest: float = WIDEST) -> str | None:
    """Why `n` validation images are too few to tell, in words, or None where they are enough.

    Too few: at a measured error rate of 10 %, half of Wilson's 95 % interval is wider than `widest`. With the default,
    0.1, that is below 37 images, where a measured 10 % may truly be 4 or 24 %.
    """
    if n < 1:
        return "there is no validation image: an error rate cannot be measured"
    low, high = _wilson_ends(0.1, n, 0.95)
    if (high - low) / 2 <= widest:
        return None
    enough = next(more for more in count(n) if np.subtract(*_wilson_ends(0.1, more, 0.95)) / -2 <= widest)
    images = "1 validation image is" if n == 1 else f"{n} validation images are"
    return (
        f"{images} too few to tell: a measured error rate of 10 % could truly be {100 * low:.0f} to {100 * high:.0f} %;"
        f" from {enough} images on it is known to within {100 * widest:g} points"
    )


def too_few(n: int, task: str = CLASSIFICATION) -> str | None:
    """The same for any task: of F1 and of numbers it can only be said that so few images leave much open."""
    text = too_small(n)
    if text is None or task == CLASSIFICATION or n < 1:
        return text
    images = "1 validation image leaves" if n == 1 else f"{n} validation images leave"
    return f"{images} much open: read the interval, not the figure alone"


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected a number between 0 and 1, such as 0.95")
    return confidence


def _wilson_ends(rate: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval for a rate, which need not be a whole number of errors."""
    z = NormalDist().inv_cdf((1 + _checked(confidence)) / 2)
    centre = (rate * n + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * sqrt(rate * (1 - rate) * n + z * z / 4)
    return float(centre - half), float(centre + half)


def _newcombe(both: int, only_a: int, only_b: int, n: int, confidence: float) -> Estimate:
    """The difference of two paired rates; below, `phi` is the correlation of the errors, with continuity corrected."""
    a, b = wilson(both + only_a, n, confidence), wilson(both + only_b, n, confidence)
    phi = _correlation(both, only_a, only_b, n - both - only_a - only_b)
    down_a, up_a, down_b, up_b = a.value - a.low, a.high - a.value, b.value - b.low, b.high - b.value
    difference = (only_a - only_b) / n
    # The sum of squares cannot be negative; rounding can make it -1e-20.
    below = sqrt(max(0.0, down_a**2 - 2 * phi * down_a * up_b + up_b**2))
    above = sqrt(max(0.0, up_a**2 - 2 * phi * up_a * down_b + down_b**2))
    return Estimate(difference, n, difference - below, difference + above, confidence)


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    n = both + only_a + only_b + neither
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    surplus = both * neither - only_a * only_b
    if product == 0:
        return 0.0
    return (max(0.0, surplus - n / 2) if surplus > 0 else surplus) / sqrt(product)


def _mcnemar(only_a: int, only_b: int) -> float:
    """Twice the tail of a fair coin's throws, at most 1: images that both have right or wrong say nothing."""
    throws = only_a + only_b
    tail = sum(comb(throws, heads) for heads in range(min(only_a, only_b) + 1))
    return min(1.0, float(2 * tail / 2**throws))
