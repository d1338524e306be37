"""95 % confidence intervals: for an error rate, for any statistic of means, and for the difference of two models.

wilson(8, 1478)                                  # 0.0054 (n=1478, 95 % 0.0027-0.0106)
paired(wrong_a, wrong_b).p                       # McNemar's test of two models on the same images

Report an error rate with its n and its interval: 0 errors of 20 images still allow a true rate of 16 %. SciPy is
imported in the functions that use it, because `scipy.stats` takes half a second to import.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)
ENOUGH_IMAGES = 37
SAMPLES_AT_ONCE = 100


@dataclass(frozen=True)
class Estimate:
    """A value measured on `n` images, with the ends `low` and `high` of its 95 % confidence interval."""

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
    """Two models, a and b, on the same images.

    difference: error rate of a minus that of b; only_a, only_b: how many images only a, or only b, has wrong;
    p: p-value of McNemar's exact test, whose null hypothesis is that both models have the same error rate.
    """

    difference: Estimate
    only_a: int
    only_b: int
    p: float


def wilson(errors: int, n: int) -> Estimate:
    """The rate `errors / n` with Wilson's score interval, which is valid for small n and for no errors too.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212.
    Raises `ValueError` where n is not positive or errors is not in 0 to n.
    """
    from scipy.stats import binomtest

    if n < 1:
        raise ValueError(f"n={n}; an error rate needs at least one image")
    if not 0 <= errors <= n:
        raise ValueError(f"errors={errors} of n={n}; expected 0 to {n}")
    low, high = binomtest(errors, n).proportion_ci(method="wilson")
    return Estimate(float(errors / n), int(n), float(low), float(high))


def bootstrap_means(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], resamples: int = 1000, seed: int = 0
) -> Estimate:
    """A statistic of column means, with its percentile interval over `resamples` bootstrap samples.

    values: (n, k), a row for each image; statistic: means (samples, k) -> (samples,). Samples whose statistic is not
    finite are left out. Each sample is one row of a matrix product; `scipy.stats.bootstrap` would copy all values for
    each sample, which is slow for 10,000 images. Source: B. Efron, Bootstrap methods: another look at the jackknife,
    Annals of Statistics 7 (1979), 1-26. The interval is too narrow for a few dozen images, and has no width where all
    values are equal: use `wilson` for an error rate. Raises `ValueError` where there are no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("no values; a bootstrap needs at least one")
    n, rng = len(values), np.random.default_rng(seed)
    samples = [
        statistic(rng.multinomial(n, np.full(n, 1 / n), size=part) @ values / n)
        for part in [SAMPLES_AT_ONCE] * (resamples // SAMPLES_AT_ONCE) + [resamples % SAMPLES_AT_ONCE]
    ]
    found = np.concatenate(samples)
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (np.nan, np.nan)
    return Estimate(float(statistic(values.mean(0)[None])[0]), n, float(low), float(high))


def paired(wrong_a: np.ndarray, wrong_b: np.ndarray) -> Comparison:
    """Compare two models on the same images. wrong_a, wrong_b: bool (n,), whether each model has each image wrong.

    The interval is Bonett and Price's: the normal approximation after adding one image to each kind of disagreement
    (Adjusted Wald confidence interval for a difference of binomial proportions based on paired data, J. Educational and
    Behavioral Statistics 37 (2012), 479-488). The p-value is two-sided and exact: Q. McNemar, Psychometrika 12 (1947),
    153-157. Raises `ValueError` where the two arrays differ in length or are empty.
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
    # McNemar's exact test is a binomial test of the images that only one of the two models has wrong.
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Comparison(difference, only_a, only_b, float(p))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a minus b, measured on different images, with its 95 % interval from both intervals; n counts the images of both.

    For two rates with Wilson's intervals this is method 10 of R. G. Newcombe, Interval estimation for the difference
    between independent proportions, Statistics in Medicine 17 (1998), 873-890; for other figures see G. Y. Zou and
    A. Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008), 1693-1702.
    """
    gap = a.value - b.value
    low = gap - sqrt((a.value - a.low) ** 2 + (b.high - b.value) ** 2)
    high = gap + sqrt((a.high - a.value) ** 2 + (b.value - b.low) ** 2)
    return Estimate(gap, a.n + b.n, low, high)


def pairs_needed(found: Comparison, power: float = 0.8) -> int | None:
    """The number of images with which McNemar's test at 5 % finds this difference with probability `power`.

    None where the difference is 0. With difference d, share s of images that only one model has wrong, and normal
    quantiles z of the level (two-sided) and of the power: n = (z_level sqrt(s) + z_power sqrt(s - d^2))^2 / d^2.
    Source: R. J. Connor, Sample size for testing differences in proportions for the paired-sample design, Biometrics 43
    (1987), 207-211.
    """
    gap, n = found.difference.value, found.difference.n
    if not gap:
        return None
    share = (found.only_a + found.only_b) / n
    z_power = NormalDist().inv_cdf(power)
    return ceil((Z * sqrt(share) + z_power * sqrt(share - gap * gap)) ** 2 / gap**2)


def too_few(n: int, *, is_rate: bool = True) -> str | None:
    """A warning that `n` validation images are too few, or None where they are enough.

    37 are enough: from there on Wilson's 95 % interval at a measured error rate of 10 % is at most 20 points wide.
    is_rate: whether the metric is an error rate; for others the warning gives no interval.
    """
    if n < 1:
        return "there is no validation image: an error rate cannot be measured"
    if n >= ENOUGH_IMAGES:
        return None
    images = "1 validation image" if n == 1 else f"{n} validation images"
    if not is_rate:
        return f"{images} leave{'s' if n == 1 else ''} much open: read the interval, not the figure alone"
    errors = round(n / 10)
    rate = wilson(errors, n)
    return (
        f"{images} {'is' if n == 1 else 'are'} too few to tell: with {errors} error{'' if errors == 1 else 's'}"
        f" the true error rate could be {100 * rate.low:.0f} to {100 * rate.high:.0f} %;"
        f" from {ENOUGH_IMAGES} images on a measured rate of 10 % is known to within 10 points"
    )
