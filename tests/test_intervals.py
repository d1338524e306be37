"""Intervals: published figures, hand-derived ones, and coverage by simulation."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from kit.intervals import ENOUGH_IMAGES, Estimate, bootstrap_means, difference, paired, pairs_needed, too_few, wilson

# statsmodels 0.15.0, proportion_confint(errors, n, method="wilson")
WILSON = [
    (8, 1478, 0.002745, 0.010645),
    (0, 20, 0.0, 0.161125),
    (20, 20, 0.838875, 1.0),
    (10, 100, 0.055229, 0.174366),
    (81, 263, 0.255289, 0.366210),
    (1, 29, 0.006113, 0.171755),
]

# statsmodels 0.15.0, mcnemar([[10, only_a], [only_b, 10]], exact=True).pvalue
MCNEMAR = [(1, 9, 0.021484375), (12, 2, 0.012939453125), (5, 5, 1.0), (0, 0, 1.0), (0, 6, 0.03125), (43, 21, 0.0081469)]


def wrong(both: int, only_a: int, only_b: int, neither: int):
    """The two models' errors that have these four counts."""
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


def test_an_estimate_says_its_value_its_n_and_its_interval():
    estimate = Estimate(0.0054, 1478, 0.0028, 0.0106)
    assert str(estimate) == repr(estimate) == "0.0054 (n=1478, 95 % 0.0028-0.0106)"
    assert f"{estimate}" == str(estimate)
    assert float(estimate) == 0.0054


def test_an_estimate_below_zero_says_so():
    assert str(Estimate(-0.1, 10, -0.2, -0.05)) == "-0.1000 (n=10, 95 % -0.2000 to -0.0500)"
    assert str(Estimate(0.1, 10, 0.0, 0.2)) == "0.1000 (n=10, 95 % 0.0000-0.2000)"


@pytest.mark.parametrize(("errors", "n", "low", "high"), WILSON)
def test_wilson_equals_the_published_figures(errors, n, low, high):
    estimate = wilson(errors, n)
    assert (estimate.value, estimate.n) == (errors / n, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-6)


def test_no_errors_reach_down_to_zero_and_all_errors_up_to_one_exactly():
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


def test_wilson_holds_the_true_rate_95_times_of_100():
    errors = np.random.default_rng(0).binomial(60, 0.1, 4000)
    intervals = [wilson(count, 60) for count in errors]
    assert np.mean([one.low <= 0.1 <= one.high for one in intervals]) == pytest.approx(0.95, abs=0.02)


def test_wilson_takes_the_counts_that_numpy_makes():
    assert wilson(np.int64(8), np.int64(1478)) == wilson(8, 1478)
    assert type(wilson(np.int64(8), np.int64(1478)).value) is float


def test_wilson_refuses_no_images():
    with pytest.raises(ValueError, match="n=0; an error rate needs at least one image"):
        wilson(0, 0)


@pytest.mark.parametrize("errors", [-1, 11])
def test_wilson_refuses_errors_outside_the_images(errors):
    with pytest.raises(ValueError, match=rf"errors={errors} of n=10; expected 0 to 10"):
        wilson(errors, 10)


def mean_of(values: np.ndarray, **options):
    return bootstrap_means(values[:, None], lambda means: means[:, 0], **options)


def test_the_bootstrap_of_a_mean_is_close_to_the_normal_interval():
    values = np.random.default_rng(1).normal(5, 2, 400)
    estimate = mean_of(values)
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.n == 400
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_the_bootstrap_holds_the_true_mean_about_95_times_of_100():
    numbers = np.random.default_rng(2)
    intervals = [mean_of(numbers.exponential(1, 80), resamples=300, seed=run) for run in range(300)]
    assert np.mean([one.low <= 1 <= one.high for one in intervals]) == pytest.approx(0.94, abs=0.03)


def test_the_bootstrap_repeats_with_its_seed():
    values = np.random.default_rng(3).normal(size=50)
    assert mean_of(values) == mean_of(values)
    assert mean_of(values) != mean_of(values, seed=1)


@pytest.mark.parametrize(("settings", "count"), [({}, 1000), ({"resamples": 250}, 250), ({"resamples": 30}, 30)])
def test_the_bootstrap_computes_as_many_samples_as_asked_and_leaves_out_those_without_a_number(settings, count):
    seen = []

    def of_ones(means):
        seen.extend(means[:, 0].tolist())
        return np.where(means[:, 0] > 0.5, means[:, 0], np.nan)

    estimate = bootstrap_means(np.array([[0.0], [1.0], [1.0]]), of_ones, **settings)
    *samples, whole = seen
    assert len(samples) == count and whole == pytest.approx(2 / 3)
    kept = [mean for mean in samples if mean > 0.5]
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(kept, [0.025, 0.975])))
    nothing = bootstrap_means(np.ones((3, 1)), lambda means: means[:, 0] * np.nan, **settings)
    assert np.isnan([nothing.low, nothing.high]).all()


def test_the_bootstrap_of_a_ratio_of_means_equals_scipys():
    values = np.random.default_rng(3).uniform(1, 2, size=(200, 2))
    ours = bootstrap_means(values, lambda means: means[:, 0] / means[:, 1])
    theirs = stats.bootstrap(
        tuple(values.T), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True, method="percentile", rng=1
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_the_bootstrap_refuses_no_values():
    with pytest.raises(ValueError, match="no values; a bootstrap needs at least one"):
        mean_of(np.array([]))


def test_a_paired_difference_equals_one_worked_by_hand():
    # Airway hyper-responsiveness (Bentur 2009), the example of Fagerland, Lydersen and Laake, Statistics in Medicine 33
    # (2014), 2850-2875, who recommend the interval: 2/23 - 8/23, give or take 1.96 sqrt((10/23 - (6/23)^2) / 23).
    comparison = paired(*wrong(both=1, only_a=1, only_b=7, neither=12))
    assert (comparison.only_a, comparison.only_b) == (1, 7)
    assert comparison.difference.n == 21
    found = (comparison.difference.value, comparison.difference.low, comparison.difference.high)
    assert found == pytest.approx((-0.286, -0.508, -0.013), abs=0.0006)


def test_the_interval_of_one_pair_ends_at_a_difference_of_one():
    high, low = paired([True], [False]).difference, paired([False], [True]).difference
    assert (high.value, high.high, low.value, low.low) == (1, 1, -1, -1)
    assert high.low == pytest.approx(1 / 3 - 1.959964 * np.sqrt((1 - 1 / 9) / 3)) == -low.high


def test_swapping_the_models_turns_the_sign_and_leaves_p():
    a, b = wrong(14, 9, 3, 40)
    there, back = paired(a, b), paired(b, a)
    assert back.difference.value == -there.difference.value
    assert (back.difference.low, back.difference.high) == pytest.approx((-there.difference.high, -there.difference.low))
    assert there.p == back.p


def test_the_paired_interval_holds_the_true_difference_about_95_times_of_100():
    numbers = np.random.default_rng(4)
    counts = numbers.multinomial(150, [0.05, 0.07, 0.03, 0.85], 1500)
    intervals = [paired(*wrong(*row)).difference for row in counts]
    assert np.mean([one.low <= 0.04 <= one.high for one in intervals]) == pytest.approx(0.955, abs=0.02)


def test_pairing_is_narrower_than_two_separate_intervals():
    a, b = wrong(both=30, only_a=4, only_b=2, neither=164)
    together = paired(a, b).difference
    apart = wilson(34, 200).high - wilson(34, 200).low
    assert together.high - together.low < apart


@pytest.mark.parametrize(("only_a", "only_b", "p"), MCNEMAR)
def test_mcnemar_equals_the_published_figures(only_a, only_b, p):
    assert paired(*wrong(10, only_a, only_b, 10)).p == pytest.approx(p, rel=1e-5)


def test_mcnemar_counts_thousands_of_disagreements():
    assert 0 < paired(*wrong(0, 2600, 2400, 0)).p < 0.01


def test_two_models_that_never_err_do_not_differ():
    comparison = paired(*wrong(0, 0, 0, 20))
    assert comparison.difference.value == 0
    assert 0.1 < comparison.difference.high == -comparison.difference.low < 0.2
    assert comparison.p == 1.0


@pytest.mark.parametrize(("left", "right"), [(3, 4), (0, 0)])
def test_a_pair_of_other_shapes_is_refused(left, right):
    with pytest.raises(ValueError, match=rf"shapes \({left},\) and \({right},\); expected \(n,\) twice"):
        paired(np.zeros(left, bool), np.zeros(right, bool))


# Newcombe 1998, Table II, method 10
DIFFERENCES = [(56, 70, 48, 80, 0.0524, 0.3339), (9, 10, 3, 10, 0.1705, 0.8090), (10, 10, 0, 10, 0.6075, 1.0)]


@pytest.mark.parametrize(("errors_a", "n_a", "errors_b", "n_b", "low", "high"), DIFFERENCES)
def test_a_difference_on_different_images_equals_the_published_figures(errors_a, n_a, errors_b, n_b, low, high):
    found = difference(wilson(errors_a, n_a), wilson(errors_b, n_b))
    assert found.value == pytest.approx(errors_a / n_a - errors_b / n_b)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.n == n_a + n_b


def test_too_few_images_are_said_in_words():
    assert too_few(36) == (
        "36 validation images are too few to tell: with 4 errors the true error rate could be 4 to 25 %;"
        " from 37 images on a measured rate of 10 % is known to within 10 points"
    )
    assert too_few(1).startswith("1 validation image is too few to tell")
    assert " with 1 error the " in too_few(10) and " with 0 errors the " in too_few(2)
    assert too_few(36, is_rate=False) == "36 validation images leave much open: read the interval, not the figure alone"
    assert too_few(0) == "there is no validation image: an error rate cannot be measured"
    assert too_few(1, is_rate=False) == "1 validation image leaves much open: read the interval, not the figure alone"


def test_enough_images_are_those_from_which_the_interval_is_at_most_20_points_wide():
    def half_width(n: int) -> float:
        interval = stats.binomtest(n, 10 * n).proportion_ci(method="wilson")  # a rate of 10 %, of 10 n images
        return (interval.high - interval.low) / 2

    assert too_few(ENOUGH_IMAGES) is None
    assert half_width(3) > 0.1 > half_width(4)  # 30 and 40 images


def test_the_intervals_import_neither_torch_nor_scipy():
    code = "import sys, kit.intervals; print({'torch', 'fastai', 'pandas', 'scipy', 'PIL'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"


def test_as_many_images_as_needed_show_the_difference_four_times_of_five():
    found = paired(*wrong(both=2, only_a=7, only_b=3, neither=62))
    needed = pairs_needed(found)
    assert 150 < needed < 400
    dice = np.random.default_rng(0)
    counts = dice.multinomial(needed, [7 / 74, 3 / 74, 64 / 74], 600)
    seen = np.mean([paired(*wrong(0, a, b, n)).p < 0.05 for a, b, n in counts])
    # The exact test asks a little more than the normal one that the formula is for.
    assert 0.72 < seen < 0.86


def test_the_number_of_images_is_that_of_connors_formula():
    found = paired(*wrong(0, only_a=30, only_b=10, neither=60))  # d 0.2, s 0.4
    assert pairs_needed(found) == 77  # (1.9600 sqrt(0.4) + 0.8416 sqrt(0.36))^2 / 0.04 = 76.1
    assert pairs_needed(found, power=0.95) == 124  # 1.6449 instead of 0.8416: 123.9


def test_more_images_are_needed_for_a_smaller_difference_and_none_can_show_none():
    few, many = (pairs_needed(paired(*wrong(0, only_a, 10, 100))) for only_a in (20, 12))
    assert many > 3 * few
    assert pairs_needed(paired(*wrong(3, 5, 5, 60))) is None
    assert pairs_needed(paired(*wrong(3, 9, 5, 60)), power=0.95) > pairs_needed(paired(*wrong(3, 9, 5, 60)))
