"""Scores of several classes and of numbers, against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from kit import scores


@pytest.fixture
def several():
    dice = np.random.default_rng(1)
    truth = dice.random((200, 4)) < [0.5, 0.3, 0.1, 0.05]
    return np.round(np.clip(dice.normal(0.3 + 0.3 * truth, 0.25), 0, 1), 2), truth


def test_mean_f1_is_scikit_learns(several):
    probabilities, truth = several
    said = probabilities > 0.5
    assert scores.mean_f1(said, truth) == pytest.approx(metrics.f1_score(truth, said, average="macro", zero_division=0))


def test_the_mean_average_precision_is_scikit_learns(several):
    probabilities, truth = several
    expected = metrics.average_precision_score(truth, probabilities, average="macro")
    assert scores.mean_average_precision(probabilities, truth) == pytest.approx(expected)


def test_a_class_that_no_image_has_has_no_average_precision_and_an_f1_of_0(several):
    probabilities, truth = several
    truth = truth.copy()
    truth[:, 2] = False
    assert np.isnan(scores.average_precision(probabilities, truth)).tolist() == [False, False, True, False]
    assert scores.mean_average_precision(probabilities, truth) == pytest.approx(
        scores.mean_average_precision(np.delete(probabilities, 2, 1), np.delete(truth, 2, 1))
    )
    assert scores.mean_f1(np.zeros((3, 1)), np.zeros((3, 1))) == 0
    assert np.isnan(scores.mean_average_precision(probabilities, np.zeros_like(truth)))


def test_errors_of_numbers_are_scikit_learns():
    dice = np.random.default_rng(2)
    truth = dice.normal(size=(50, 2)) * [1, 100]
    numbers = truth + dice.normal(size=(50, 2)) * [0.1, 30]
    raw = {"multioutput": "raw_values"}
    assert scores.mae(numbers, truth) == pytest.approx(metrics.mean_absolute_error(truth, numbers, **raw))
    assert scores.rmse(numbers, truth) == pytest.approx(metrics.root_mean_squared_error(truth, numbers, **raw))
    assert scores.r2(numbers, truth) == pytest.approx(metrics.r2_score(truth, numbers, **raw))


def test_what_does_not_vary_has_no_r2():
    assert np.isnan(scores.r2(np.array([[1.0], [2.0]]), np.array([[5.0], [5.0]]))).all()
