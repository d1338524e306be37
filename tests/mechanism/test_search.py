"""Hyperparameter search: log ranges, narrowing, a known optimum, and a small training on digits."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.losses import accuracy, one_hot
from kit.mechanism.search import Range, Trial, random_search


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_log_range_draws_every_power_of_ten_equally_often():
    generator = dice()
    draws = torch.tensor([Range(1e-4, 1).draw(generator) for _ in range(4000)])
    shares = torch.histc(draws.log10(), 4, -4, 0) / 4000
    assert (shares - 0.25).abs().max() < 0.03


def test_without_log_nine_in_ten_draws_fall_into_the_largest_power_of_ten():
    generator = dice()
    draws = [Range(0, 1, log=False).draw(generator) for _ in range(4000)]
    assert sum(draw > 0.1 for draw in draws) / 4000 == pytest.approx(0.9, abs=0.03)


def test_no_draw_leaves_its_range():
    generator = dice()
    for span in (Range(1e-8, 1e-7), Range(-3, 5, log=False), Range(3, 3.0000000001)):
        assert all(span.low <= span.draw(generator) <= span.high for _ in range(500))


def test_a_range_narrows_to_the_good_values_and_a_margin():
    narrowed = Range(1e-6, 1).narrow([1e-3, 1e-2, 1e-1])
    assert (narrowed.low, narrowed.high) == (pytest.approx(1e-4), pytest.approx(1.0))
    assert Range(0, 100, log=False).narrow([40, 50, 60]) == Range(30, 70, log=False)


def test_two_values_are_enough_to_narrow_and_one_round_to_search():
    narrowed = Range(0, 10, log=False).narrow([4, 6])
    assert (narrowed.low, narrowed.high) == (2, 8)
    trials = random_search(lambda values: values["x"], {"x": Range(0, 1, log=False)}, trials=2, rounds=1, keep=2)
    assert [trial.round for trial in trials] == [0, 0] and trials[0].score > trials[1].score


def test_a_narrowed_range_stays_inside_the_range():
    assert Range(1, 10, log=False).narrow([1.5, 9.5]) == Range(1, 10, log=False)


def objective(values):
    """Best, with 0, at lr 0.03 and weight_decay 1e-4; a power of ten beside it costs 1."""
    return -((math.log10(values["lr"] / 0.03)) ** 2) - (math.log10(values["weight_decay"] / 1e-4)) ** 2


RANGES = {"lr": Range(1e-5, 10), "weight_decay": Range(1e-8, 0.1)}


def test_the_known_optimum_is_found():
    best = random_search(objective, RANGES, trials=30, rounds=4, generator=dice())[0]
    assert abs(math.log10(best.values["lr"] / 0.03)) < 0.1
    assert abs(math.log10(best.values["weight_decay"] / 1e-4)) < 0.1


def test_narrowing_beats_as_many_draws_from_the_whole_range():
    narrowed = [random_search(objective, RANGES, 20, 3, generator=dice(seed))[0].score for seed in range(20)]
    plain = [random_search(objective, RANGES, 60, 1, generator=dice(seed))[0].score for seed in range(20)]
    assert sum(narrowed) > 0.3 * sum(plain)
    assert sum(a > b for a, b in zip(narrowed, plain, strict=True)) >= 15


def test_each_round_draws_from_a_smaller_space():
    found = random_search(objective, RANGES, trials=20, rounds=3, generator=dice())

    def spread(number):
        rates = [math.log10(trial.values["lr"]) for trial in found if trial.round == number]
        return max(rates) - min(rates)

    assert spread(0) > spread(1) > spread(2)
    assert [sum(trial.round == number for trial in found) for number in range(3)] == [20, 20, 20]


def test_a_run_that_diverged_counts_as_worst():
    def fragile(values):
        return math.nan if values["lr"] > 0.1 else values["lr"]

    found = random_search(fragile, {"lr": Range(1e-3, 10)}, 10, 1, generator=dice())
    lost = [math.isnan(trial.score) for trial in found]
    assert any(lost) and not all(lost)
    assert lost == sorted(lost)


def test_ranges_narrow_around_finished_runs_only():
    def hardly_ever(values):
        return 1.0 if values["lr"] < 1e-2 else math.nan

    found = random_search(hardly_ever, {"lr": Range(1e-4, 1e4)}, 12, 2, keep=10, generator=dice())
    assert sum(math.isnan(trial.score) for trial in found if trial.round == 0) > 6
    assert sum(math.isnan(trial.score) for trial in found if trial.round == 1) <= 6
    assert len(random_search(lambda _: math.nan, RANGES, 5, 2, generator=dice())) == 10


def test_the_same_generator_tries_the_same_values():
    assert random_search(objective, RANGES, generator=dice(3)) == random_search(objective, RANGES, generator=dice(3))


def test_the_objective_cannot_change_what_was_tried():
    found = random_search(lambda values: values.pop("lr"), {"lr": Range(0.1, 1)}, 5, 2, generator=dice())
    assert all(isinstance(trial, Trial) and "lr" in trial.values for trial in found)


def test_the_learning_rate_of_a_real_training_is_found():
    """Softmax regression on digits by hand, 15 steps: the learning rate must not be too small or too large."""
    pixels, labels = load_digits(return_X_y=True)
    x, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    train, valid = slice(0, 1200), slice(1200, None)
    hot = one_hot(labels[train], 10)

    def score(values):
        weight = torch.zeros(10, 64)
        for _ in range(15):
            answer = (x[train] @ weight.T).softmax(dim=1)
            weight -= values["lr"] * ((answer - hot).T @ x[train] / 1200 + values["weight_decay"] * weight)
        return accuracy(x[valid] @ weight.T, labels[valid])

    ranges = {"lr": Range(1e-4, 1e3), "weight_decay": Range(1e-6, 1)}
    found = random_search(score, ranges, trials=12, rounds=3, generator=dice())
    assert found[0].score > 0.85 > found[-1].score + 0.1
    assert 0.05 < found[0].values["lr"] < 50


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Range(1, 1), "range is 1 to 1: expected a smaller and a larger number"),
        (lambda: Range(0, math.nan), "range is 0 to nan"),
        (lambda: Range(0, 1), "range starts at 0: a log range must be positive; use log=False"),
        (lambda: Range(0.1, 1).narrow([0.5]), r"cannot narrow a range around \[0.5\]"),
        (lambda: random_search(objective, {}), "no ranges to search"),
        (
            lambda: random_search(objective, RANGES, trials=3),
            "trials=3, rounds=3, keep=5: expected trials >= keep",
        ),
        (lambda: random_search(objective, RANGES, rounds=0), "rounds=0"),
    ],
)
def test_what_cannot_be_searched_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
