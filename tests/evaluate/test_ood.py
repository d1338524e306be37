"""Out-of-distribution detection, on clouds of numbers: two known classes in 60 features and a third, unknown one."""

import subprocess
import sys

import numpy as np
import pytest

from kit.errors import BundleError
from kit.evaluate.ood import FEWEST_TRAIN, FEWEST_VALID, OODDetector, fit, too_few

F = 60
CENTRES = np.abs(np.random.default_rng(99).normal(size=(3, F))) * 3


def cloud(which: int, n: int, seed: int) -> np.ndarray:
    """n images around one of the three centres; the third is the unknown thing."""
    return (CENTRES[which] + np.random.default_rng(seed).normal(size=(n, F))).astype(np.float32)


def known(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([cloud(0, n, seed), cloud(1, n, seed + 1000)]), np.repeat(["cat", "dog"], n)


def fitted(train: int = 100, valid: int = 100) -> OODDetector:
    return fit(*known(train, 1), known(valid, 2)[0])


def test_another_thing_is_flagged_and_new_images_of_the_known_ones_are_not():
    unknown = fitted()
    assert unknown.flags(cloud(2, 200, 3)).mean() > 0.99
    assert 0.01 < unknown.flags(known(1000, 4)[0]).mean() < 0.1


def test_a_weak_signal_of_another_kind_is_no_less_unknown_than_a_strong_one():
    unknown, other = fitted(), cloud(2, 50, 3)
    assert unknown.scores(other / 100) == pytest.approx(unknown.scores(other), rel=1e-4)
    assert unknown.flags(other / 100).all()


def test_far_fewer_images_than_features_are_enough():
    rng = np.random.default_rng(0)
    centres = np.abs(rng.normal(size=(3, 1024))) * 2

    def images(which, n):
        return (centres[which] + rng.normal(size=(n, 1024))).astype(np.float32)

    train = np.concatenate([images(0, 10), images(1, 10)])
    unknown = fit(train, np.repeat([0, 1], 10), np.concatenate([images(0, 10), images(1, 10)]))
    assert unknown.flags(images(2, 50)).all()
    assert unknown.flags(np.concatenate([images(0, 50), images(1, 50)])).mean() < 0.2


def test_mahalanobis_counts_a_step_by_how_far_the_known_images_spread_that_way():
    rng = np.random.default_rng(0)
    spread = np.array([1.0] * 5 + [0.1] * 5)

    def images(n):
        return (10 + rng.normal(size=(n, 10)) * spread).astype(np.float32)

    unknown = fit(images(500), np.zeros(500), images(100))
    steps = 10 + 2 * np.eye(10)
    wide, narrow = unknown.scores(steps[[0, 9]])
    assert narrow > 2 * wide


@pytest.mark.parametrize("valid", [FEWEST_VALID, 10, 18, 19, 40, 100])
def test_new_known_images_are_flagged_at_most_about_one_time_in_twenty_however_few_set_the_threshold(valid):
    shares = []
    for seed in range(40):
        train, labels = known(50, 10 * seed)
        unknown = fit(train, labels, known(valid, 10 * seed + 3)[0][::2][:valid])
        shares.append(unknown.flags(known(100, 10 * seed + 6)[0]).mean())
    assert 0.005 < np.mean(shares) < 0.075


def low_rank(which: int, n: int, features: int, seed: int, draw: int) -> np.ndarray:
    """n images around one of a seed's three centres; most of what they differ in lies along 12 directions."""
    fixed, rng = np.random.default_rng(seed), np.random.default_rng([seed, draw])
    centres, directions = 10 + 3 * np.abs(fixed.normal(size=(3, features))), fixed.normal(size=(12, features))
    along = rng.normal(size=(n, 12)) @ directions / 2
    return (centres[which] + along + rng.normal(size=(n, features))).astype(np.float32)


@pytest.mark.parametrize(("images", "features"), [(120, 600), (600, 40)])
def test_training_validation_and_new_images_are_flagged_equally_often_with_more_features_than_images_or_fewer(
    images, features
):
    shares, separated = [], []
    for seed in range(8):
        train, valid, new = (
            np.concatenate([low_rank(which, n // 2, features, seed, 2 * draw + which) for which in (0, 1)])
            for draw, n in enumerate((images, 100, 400))
        )
        far = low_rank(2, 100, features, seed, 6)
        unknown = fit(train, np.repeat([0, 1], images // 2), valid)
        shares.append([unknown.flags(known).mean() for known in (train, valid, new)])
        separated.append((unknown.scores(far)[:, None] > unknown.scores(new)).mean())
    # The 100 validation images leave 0.8 % of uncertainty in the mean of 8 thresholds; a training image lies nearer.
    assert np.abs(np.mean(shares, axis=0) - 0.05).max() < 0.04
    assert np.min(separated) > 0.95


def test_with_few_validation_images_none_of_them_is_flagged():
    for valid in (3, 5, 9):
        validation = known(valid, 2)[0]
        assert not fit(*known(20, 1), validation).flags(validation).any()


def test_too_few_images_give_none_and_the_reason():
    assert fitted(train=4) is None
    assert fitted(valid=2) is None
    assert too_few(8, 100) == "8 training images are too few to know what is unlike them; it takes 10"
    assert too_few(100, 4) == "4 validation images are too few to know what is unlike them; it takes 5"
    assert too_few(FEWEST_TRAIN, FEWEST_VALID) is None


def test_images_that_are_all_alike_still_give_finite_scores():
    same = np.ones((12, F), np.float32)
    unknown = fit(same, np.zeros(12), same[:6])
    assert np.isfinite(unknown.scores(cloud(2, 5, 3))).all()
    assert unknown.flags(cloud(2, 5, 3)).all()
    assert not unknown.flags(same).any()


def test_the_image_that_sets_the_threshold_is_not_flagged_by_rounding():
    for seed in range(30):
        validation = known(20, 50 + seed)[0]
        assert fit(*known(30, 1), validation).flags(validation).sum() == 1  # of 40, the 39th sets it


def test_features_of_nothing_score_and_those_that_are_no_numbers_are_flagged():
    unknown = fitted()
    assert np.isfinite(unknown.scores(np.zeros((1, F), np.float32))).all()
    broken = known(1, 5)[0][:1].repeat(2, axis=0)
    broken[0, 3], broken[1, 3] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        assert unknown.flags(broken).tolist() == [True, True]
    assert unknown.scores(np.zeros((0, F), np.float32)).shape == (0,)


def test_what_was_stored_scores_the_same(tmp_path):
    from safetensors.numpy import load_file, save_file

    unknown = fitted()
    save_file(unknown.arrays(), tmp_path / "unknown.safetensors")
    again = OODDetector.from_arrays(load_file(tmp_path / "unknown.safetensors"))
    images = np.concatenate([known(50, 5)[0], cloud(2, 50, 5)])
    assert np.array_equal(again.scores(images), unknown.scores(images))
    assert np.array_equal(again.flags(images), unknown.flags(images))


@pytest.mark.parametrize("features", [512, 4096])
def test_what_is_stored_stays_small(features):
    images = np.abs(np.random.default_rng(0).normal(size=(600, features))).astype(np.float32)
    unknown = fit(images[:500], np.arange(500) % 7, images[500:])
    assert sum(array.nbytes for array in unknown.arrays().values()) < 1.1e6
    assert {array.dtype for array in unknown.arrays().values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("mean", None, "mean is missing"),
        ("evil", np.zeros(1, np.float32), "evil is not known"),
        ("mean", np.zeros(F + 1, np.float32), f"mean has shape ({F + 1},); expected ({F},)"),
        ("projection", np.zeros(F, np.float32), f"projection has shape ({F},); expected (f, d)"),
        ("points", np.zeros((0, F), np.float32), f"points has shape (0, {F}); expected (m, {F})"),
        ("points", np.zeros((2, 3), np.float32), f"points has shape (2, 3); expected (m, {F})"),
        ("threshold", np.array([np.nan], np.float32), "threshold is not finite"),
        ("threshold", np.array([1.0]), "threshold is float64; expected float32"),
        ("nearest", np.array([3], np.float32), "nearest is 3; expected a whole number from 1 to 2"),
        ("nearest", np.array([1.5], np.float32), "nearest is 1.5; expected a whole number from 1 to 2"),
        ("nearest", np.zeros(2, np.float32), "nearest has shape (2,); expected (1,)"),
    ],
)
def test_stored_arrays_that_are_not_as_they_should_be_are_refused_by_name(field, value, text):
    arrays = fitted().arrays() | {field: value}
    if value is None:
        del arrays[field]
    with pytest.raises(BundleError) as caught:
        OODDetector.from_arrays(arrays)
    assert caught.value.problem == f"the out-of-distribution detector: field {text}"


def test_shapes_and_values_that_do_not_fit_are_refused():
    train, labels = known(20, 1)
    with pytest.raises(
        ValueError, match=r"shapes \(40, 60\), \(39,\) and \(40, 60\); expected \(n, f\), \(n,\), \(m, f\)"
    ):
        fit(train, labels[:-1], train)
    with pytest.raises(ValueError, match="not finite: training diverged"):
        fit(train * np.nan, labels, train)
    with pytest.raises(ValueError, match=r"features of shape \(60,\); expected \(n, 60\)"):
        fitted().scores(train[0])


def test_neither_torch_nor_fastai_nor_pandas_is_needed():
    code = "import sys, kit.evaluate.ood, kit.evaluate.calibration; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "fastai", "pandas", "PIL", "sklearn"} & set(loaded)
