"""How sure a number is: 95 % intervals for an error rate, for any statistic, and for the difference of two models.

wilson(8, 1478)                                  # 0.0054 (n=1478, 95 % 0.0027-0.0106)
paired(wrong_a, wrong_b).p                       # do two models differ, on the same images?

An error rate without its n and interval says little: 0 errors of 20 images still allow a true rate of 16 %.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np

from kit.task import CLASSIFICATION

Z = NormalDist().inv_cdf(0.975)
ENOUGH_IMAGES = 37
DRAWS_AT_ONCE = 100


@dataclass(frozen=True)
class Estimate:
    """A value measured on `n` images, and the interval `low` to `high` that holds the true one 95 times of 100."""

    value: float
    n: int
    low: float
    high: float

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        dash = "-" if self.low >= 0 else " to "
        return f"{self.value:.4f} (n={self.n}, 95 % {self.low:.4f}{dash}{self.high:.4f})"

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


def wilson(errors: int, n: int) -> Estimate:
    """The rate `errors / n` with Wilson's score interval, which holds for few images and for no errors at all.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212.
    Raises `ValueError` where n is not positive or errors lie outside 0 to n.
    """
    if n < 1:
        raise ValueError(f"n={n}; an error rate needs at least one image")
    if not 0 <= errors <= n:
        raise ValueError(f"errors={errors} of n={n}; expected 0 to {n}")
    low, high = _wilson_ends(errors / n, n)
    # Exact where the formula gives exactly 0 or 1: rounding would leave 1e-19 there.
    low, high = (0.0 if errors == 0 else low), (1.0 if errors == n else high)
    return Estimate(float(errors / n), int(n), low, high)


def _wilson_ends(rate: float, n: int) -> tuple[float, float]:
    """Wilson's interval for a rate, which need not be a whole number of errors.

    `scipy.stats.binomtest(errors, n).proportion_ci(method="wilson")` is the same for whole numbers, and takes half a
    second to import.
    """
    centre = (rate * n + Z * Z / 2) / (n + Z * Z)
    half = Z / (n + Z * Z) * sqrt(rate * (1 - rate) * n + Z * Z / 4)
    return float(centre - half), float(centre + half)


def bootstrap_means(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], resamples: int = 1000, seed: int = 0
) -> Estimate:
    """A statistic of column means, with its percentile interval over `resamples` draws with replacement.

    values: (n, k), a row an image; statistic: means (draws, k) -> (draws,). Draws whose statistic is not finite are
    left out. A draw is a matrix product, so that ten thousand images are not slow: `scipy.stats.bootstrap` would copy
    their values for each draw. Source: B. Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics
    7 (1979), 1-26. The interval is too narrow for a few dozen images, and says nothing where all values are equal: for
    an error rate, take `wilson`. Raises `ValueError` where there are no values.
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
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (np.nan, np.nan)
    return Estimate(float(statistic(values.mean(0)[None])[0]), n, float(low), float(high))


def paired(wrong_a: np.ndarray, wrong_b: np.ndarray) -> Comparison:
    """Compare two models on the same images. wrong_a, wrong_b: booleans (n,), whether each model errs on each image.

    The interval is that of D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data, J. Educational and Behavioral Statistics 37 (2012), 479-488: the normal one, after
    one image was added to each kind of disagreement. The p value is two-sided and exact: Q. McNemar, Psychometrika 12
    (1947), 153-157. Raises `ValueError` where the two differ in length or are empty.
    """
    from scipy.stats import binomtest

    wrong_a, wrong_b = np.asarray(wrong_a, dtype=bool), np.asarray(wrong_b, dtype=bool)
    if wrong_a.shape != wrong_b.shape or wrong_a.ndim != 1 or not wrong_a.size:
        raise ValueError(f"shapes {wrong_a.shape} and {wrong_b.shape}; expected (n,) twice, of one n above 0")
    n, only_a, only_b = len(wrong_a), int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum())
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = share_a - share_b
    half = Z * sqrt((share_a + share_b - centre**2) / (n + 2))
    difference = Estimate((only_a - only_b) / n, n, max(-1.0, centre - half), min(1.0, centre + half))
    # McNemar's test asks whether a fair coin decided which of the two models has an image wrong.
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Comparison(difference, only_a, only_b, float(p))


def pairs_needed(found: Comparison, power: float = 0.8) -> int | None:
    """How many images McNemar's test, at a level of 5 %, needs to see a difference like the one found; None for none.

    With d the difference and s the share of images that only one model has wrong, and z the normal quantiles of the
    level (two-sided) and the power: n = (z_level sqrt(s) + z_power sqrt(s - d^2))^2 / d^2. Source: R. J. Connor, Sample
    size for testing differences in proportions for the paired-sample design, Biometrics 43 (1987), 207-211.
    """
    gap, n = found.difference.value, found.difference.n
    if not gap:
        return None
    share = (found.only_a + found.only_b) / n
    z_power = NormalDist().inv_cdf(power)
    return ceil((Z * sqrt(share) + z_power * sqrt(share - gap * gap)) ** 2 / gap**2)


def too_few(n: int, task: str = CLASSIFICATION) -> str | None:
    """Why `n` validation images are too few to tell, in words, or None where they are enough.

    Enough are 37: from there on Wilson's 95 % interval at a measured error rate of 10 % is at most 20 points wide. Of
    F1 and of numbers it can only be said that so few images leave much open.
    """
    if n < 1:
        return "there is no validation image: an error rate cannot be measured"
    if n >= ENOUGH_IMAGES:
        return None
    images = "1 validation image" if n == 1 else f"{n} validation images"
    if task != CLASSIFICATION:
        return f"{images} leave{'s' if n == 1 else ''} much open: read the interval, not the figure alone"
    low, high = _wilson_ends(0.1, n)
    return (
        f"{images} {'is' if n == 1 else 'are'} too few to tell: a measured error rate of 10 % could truly be"
        f" {100 * low:.0f} to {100 * high:.0f} %; from {ENOUGH_IMAGES} images on it is known to within 10 points"
    )
