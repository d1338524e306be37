"""Calibration, on predictions whose true temperature is known because they were drawn from it."""

import numpy as np
import pytest

from kit.evaluate.calibration import Calibration, calibrate, calibrated, calibration_error, fit_temperature


def drawn(n: int, sureness: float = 1.0, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `sureness` times as sure (in logits) as those that the true classes were drawn from."""
    dice = np.random.default_rng(seed)
    honest = softmax(2 * dice.normal(size=(n, classes)))
    truth = (honest.cumsum(1) > dice.random((n, 1))).argmax(1)
    return softmax(sureness * np.log(honest)), truth


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("sureness", [0.5, 1, 2, 4])
def test_the_temperature_that_the_predictions_were_drawn_with_is_found(sureness):
    assert fit_temperature(*drawn(20_000, sureness)) == pytest.approx(sureness, rel=0.05)


@pytest.mark.parametrize("n", [20, 200])
def test_the_fitted_temperature_has_the_least_cross_entropy_and_the_most_probable_logarithm(n):
    probabilities, truth = drawn(n, 3)
    best = fit_temperature(probabilities, truth)

    def loss(temperature):
        cross_entropy = -np.log(calibrated(probabilities, temperature)[np.arange(n), truth]).sum()
        return cross_entropy + np.log(temperature) ** 2 / 2

    assert all(loss(best) < loss(best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))
    assert loss(best * np.exp(1e-4)) == pytest.approx(loss(best * np.exp(-1e-4)), abs=1e-7)


def test_dividing_the_logits_gives_the_same():
    logits = np.random.default_rng(1).normal(size=(50, 4)) * 3
    assert calibrated(softmax(logits), 1.7) == pytest.approx(softmax(logits / 1.7), abs=1e-12)
    assert calibrated(softmax(logits), 1.0) == pytest.approx(softmax(logits), abs=1e-12)


def test_a_probability_of_zero_stays_a_number_and_the_top_class_stays_on_top():
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, 0.4]], np.float32)
    for temperature in (0.1, 1, 10):
        result = calibrated(probabilities, temperature)
        assert np.isfinite(result).all()
        assert result.sum(1) == pytest.approx(1)
        assert result.argmax(1).tolist() == [0, 1]
    assert calibrated(probabilities, 10)[0, 1] > 1e-5
    right = np.repeat(probabilities, 20, axis=0)
    assert np.isfinite(fit_temperature(right, np.full(40, 2)))


def test_few_images_leave_the_temperature_alone():
    probabilities, truth = drawn(200, 3)
    assert fit_temperature(probabilities[:19], truth[:19]) == 1.0 != fit_temperature(probabilities[:20], truth[:20])
    assert fit_temperature(probabilities, truth) != 1.0


def test_images_without_a_mistake_do_not_make_every_probability_a_certainty():
    probabilities = np.tile([[0.95, 0.05], [0.1, 0.9]], (10, 1))
    temperature = fit_temperature(probabilities, probabilities.argmax(1))
    assert 0.3 < temperature < 1
    assert calibrated(probabilities, temperature).max() < 0.999


def test_predictions_that_know_nothing_get_the_highest_temperature_of_the_range():
    sure_and_wrong = np.tile([[0.99, 0.01]], (100, 1))
    assert fit_temperature(sure_and_wrong, np.ones(100, int)) == pytest.approx(10, rel=1e-3)


def test_the_calibration_error_is_the_one_worked_out_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    truth = np.array([0, 0, 1, 1])
    # Three at 0.9 of which two are right, one at 0.7 that is right.
    expected = 3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * abs(1 - 0.7)
    assert calibration_error(probabilities, truth) == pytest.approx(expected)
    # In one bin the confidences mix, and part of the error cancels.
    assert calibration_error(probabilities, truth, bins=1) == pytest.approx(abs(3 / 4 - 3.4 / 4))
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_confidences_fall_into_fifteen_bins_that_hold_their_upper_ends():
    confidence = np.array([8 / 15, 8 / 15 + 1e-6, 9 / 15, 9 / 15 + 1e-6, 0.5])
    probabilities, truth = np.stack([confidence, 1 - confidence], 1), np.array([0, 1, 0, 1, 1])
    parts = [[0, 4], [1, 2], [3]]
    expected = sum(abs((confidence[part] - (truth[part] == 0)).sum()) for part in parts) / 5
    assert calibration_error(probabilities, truth) == pytest.approx(expected)
    low = np.full((2, 20), 1 / 20)  # the two lowest bins need more than 15 classes
    low[1, :2] = [0.1, 0.0]
    assert calibration_error(low, np.array([0, 2])) == pytest.approx((1 - 0.05 + 0.1) / 2)
    above = np.array([[1.0005, 0.0], [0.98, 0.02]])  # a rounding error above 1 is in the last bin too
    assert calibration_error(above, np.array([1, 0])) == pytest.approx(abs(1 - 1.0005 - 0.98) / 2)


def test_the_folds_hold_every_class_in_equal_shares_and_two_are_enough(monkeypatch):
    probabilities, truth = drawn(60, 2)
    seen = []
    monkeypatch.setattr(
        "kit.evaluate.calibration.fit_temperature", lambda _, true: seen.append(np.bincount(true)) or 1.5
    )
    for folds in (2, 5):
        seen.clear()
        calibrate(probabilities, truth, folds=folds)
        held = np.bincount(truth) - np.array(seen[:folds])
        assert (held.max(0) - held.min(0) <= 1).all() and held.sum() == 60


def test_a_temperature_is_never_below_a_tenth():
    assert fit_temperature(*drawn(20_000, 0.03)) == pytest.approx(0.1, rel=1e-3)


def test_calibration_mends_what_is_too_sure_and_hardly_touches_what_is_honest():
    mended = calibrate(*drawn(4000, 3))
    assert mended.error_before > 0.1
    assert mended.error_after < 0.03
    honest = calibrate(*drawn(4000, 1))
    assert honest.temperature == pytest.approx(1, abs=0.1)
    assert honest.error_before < 0.03
    assert honest.error_after < 0.03


def test_the_error_after_is_measured_on_images_that_did_not_fit_the_temperature(monkeypatch):
    probabilities, truth = drawn(50, 2)
    seen = []

    def remembering(some, _):
        seen.append({row.tobytes() for row in some})
        return float(len(seen))

    monkeypatch.setattr("kit.evaluate.calibration.fit_temperature", remembering)
    result = calibrate(probabilities, truth)
    assert [len(rows) for rows in seen] == [40] * 5 + [50]
    for row in probabilities:
        assert sum(row.tobytes() not in rows for rows in seen[:5]) == 1
    assert result.temperature == 6.0


def test_a_handful_of_images_gets_a_calibration_that_changes_nothing():
    for n in (1, 3, 10):
        result = calibrate(*drawn(n, 3))
        assert (result.temperature, result.n) == (1.0, n)
        assert result.error_before == pytest.approx(result.error_after)
    assert calibrate(*drawn(20, 3)).temperature == 1.0  # of 20 images each fold fits 16, and gains nothing


def test_a_calibration_says_itself_in_one_line():
    line = "temperature 1.50; expected calibration error 0.1000 before, 0.0200 after (cross-fitted, n=74)"
    assert str(Calibration(1.5, 0.1, 0.02, 74)) == line


@pytest.mark.parametrize(
    ("probabilities", "truth", "text"),
    [
        (np.ones((3, 2)) / 2, np.zeros(2, int), "shapes (3, 2) and (2,); expected (n, classes) and (n,), n above 0"),
        (np.ones((0, 2)), np.zeros(0, int), "n above 0"),
        (np.ones((2, 2)) / 2, np.array([0, 2]), "truth holds 0 to 2; expected class indices, 0 to 1"),
        (np.ones((2, 2)) / 2, np.array([0.0, 1.0]), "expected class indices"),
        (np.array([[1.5, -0.5]]), np.array([0]), "give them after the softmax, not logits"),
        (np.ones((2, 2)) / 2, np.array([-1, 1]), "truth holds -1 to 1; expected class indices, 0 to 1"),
        (np.ones((1, 2)) / 2.01, np.array([0]), "do not add up to 1"),
        (np.array([[4.0, -2.0]]), np.array([0]), "give them after the softmax, not logits"),
        (np.array([[np.nan, np.nan]]), np.array([0]), "do not add up to 1"),
    ],
)
def test_what_cannot_be_predictions_is_refused(probabilities, truth, text):
    for function in (calibrate, calibration_error, fit_temperature):
        with pytest.raises(ValueError) as caught:
            function(probabilities, truth)
        assert text in str(caught.value)


def test_a_temperature_of_zero_and_a_single_fold_are_refused():
    for temperature in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number above 0"):
            calibrated(np.ones((1, 2)) / 2, temperature)
    with pytest.raises(ValueError, match="folds=1; expected 2 or more"):
        calibrate(*drawn(30), folds=1)


def test_a_temperature_that_does_not_help_is_not_used():
    """Of 40 guesses between two classes that are as sure as they are right, each fold fits chance."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        sure = rng.uniform(0.5, 1, 40)
        truth = (rng.uniform(size=40) > sure).astype(int)
        found = calibrate(np.stack([sure, 1 - sure], 1), truth, seed=seed)
        assert (found.temperature == 1) or (found.error_after < found.error_before)
