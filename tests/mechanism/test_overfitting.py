"""Overfitting: a network that memorises its examples, and the effect of each remedy."""

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.overfitting import Curves, compare_remedies, flip_labels, split_for_overfitting


def digits():
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


@pytest.fixture(scope="module", params=[0, 1, 2])
def curves(request):
    return compare_remedies(*split_for_overfitting(*digits(), request.param), seed=request.param)


def test_a_wide_network_memorises_a_hundred_digits_and_fails_on_others(curves):
    overfitted = curves["none"]
    assert overfitted.training_loss[-1] < 0.02
    assert overfitted.validation_error[-1] > 0.2
    assert overfitted.gap > 0.8


def test_the_gap_is_that_of_the_last_losses():
    assert Curves([2.0, 1.0], [3.0, 5.0]).gap == 4


def test_the_validation_loss_falls_and_then_rises_while_the_training_loss_falls(curves):
    overfitted = curves["none"]
    best = min(overfitted.validation_loss)
    assert overfitted.validation_loss.index(best) < len(overfitted.validation_loss) / 2
    assert overfitted.validation_loss[-1] > best + 0.1
    assert overfitted.training_loss[-1] == min(overfitted.training_loss)


@pytest.mark.parametrize("remedy", ["weight decay", "dropout", "more data"])
def test_each_remedy_reduces_the_gap_and_the_validation_error(curves, remedy):
    assert curves[remedy].gap < curves["none"].gap
    assert curves[remedy].validation_loss[-1] < curves["none"].validation_loss[-1]
    assert curves[remedy].validation_error[-1] < curves["none"].validation_error[-1]


def test_more_data_helps_most(curves):
    assert min(curves, key=lambda name: curves[name].validation_error[-1]) == "more data"


def test_weight_decay_increases_the_training_loss(curves):
    assert curves["weight decay"].training_loss[-1] > 10 * curves["none"].training_loss[-1]


def test_all_four_start_with_the_same_weights(curves):
    assert len({c.validation_loss[0] for c in curves.values()}) == 1


def test_flipped_labels_are_wrong_with_the_given_probability():
    y = torch.arange(10).repeat(1000)
    changed = flip_labels(y, 0.2, 10, torch.Generator().manual_seed(0))
    assert (changed != y).double().mean().item() == pytest.approx(0.2, abs=0.02)
    assert changed.min() >= 0 and changed.max() <= 9
    assert (flip_labels(y, 1.0, 10) != y).all()


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="100 examples: expected at least 1200, 600 for training and 600 for"):
        split_for_overfitting(torch.zeros(100, 2), torch.zeros(100))
