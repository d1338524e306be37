"""A network that has learned its examples by heart, and what helps against it: a lesson in numbers."""

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.overfitting import (
    remedies,
    split_for_overfitting,
    train,
    wide_network,
    with_wrong_labels,
)


def digits():
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


@pytest.fixture(scope="module", params=[0, 1, 2])
def curves(request):
    return remedies(*split_for_overfitting(*digits(), request.param), seed=request.param)


def test_a_wide_network_learns_a_hundred_digits_by_heart_and_fails_on_others(curves):
    by_heart = curves["nothing"]
    assert by_heart.training_loss[-1] < 0.02
    assert by_heart.training_error[-1] == 0
    assert by_heart.validation_error[-1] > 0.2
    assert by_heart.gap > 0.8


def test_its_validation_loss_falls_at_first_and_then_rises_while_the_training_loss_only_falls(curves):
    by_heart = curves["nothing"]
    best = min(by_heart.validation_loss)
    assert by_heart.validation_loss.index(best) < len(by_heart.steps) / 2
    assert by_heart.validation_loss[-1] > best + 0.1
    assert by_heart.training_loss[-1] == min(by_heart.training_loss)


@pytest.mark.parametrize("remedy", ["weight decay", "dropout", "more data"])
def test_each_remedy_narrows_the_gap_and_lowers_the_validation_error(curves, remedy):
    assert curves[remedy].gap < curves["nothing"].gap
    assert curves[remedy].validation_loss[-1] < curves["nothing"].validation_loss[-1]
    assert curves[remedy].validation_error[-1] < curves["nothing"].validation_error[-1]


def test_more_data_helps_most(curves):
    assert min(curves, key=lambda name: curves[name].validation_error[-1]) == "more data"


def test_weight_decay_is_bought_with_training_loss(curves):
    assert curves["weight decay"].training_loss[-1] > 10 * curves["nothing"].training_loss[-1]


def test_all_four_begin_with_the_same_weights_on_the_validation_set(curves):
    assert len({c.validation_loss[0] for c in curves.values()}) == 1


def test_the_same_seed_gives_the_same_curves_in_every_bit():
    few, _, validation = split_for_overfitting(*digits())

    def once():
        network = wide_network(64, 32, 10, dropout=0.5, generator=torch.Generator().manual_seed(1))
        return train(network, few, validation, steps=20)

    assert once() == once()


def test_wrong_labels_are_wrong_and_as_many_as_asked_for():
    y = torch.arange(10).repeat(1000)
    changed = with_wrong_labels(y, 0.2, 10, torch.Generator().manual_seed(0))
    assert (changed != y).double().mean().item() == pytest.approx(0.2, abs=0.02)
    assert changed.min() >= 0 and changed.max() <= 9
    assert torch.equal(with_wrong_labels(y, 0.0, 10), y)
    assert (with_wrong_labels(y, 1.0, 10) != y).all()


def test_what_cannot_be_done_is_refused_in_words():
    x, y = digits()
    with pytest.raises(ValueError, match="share 20 of wrong labels: expected a number from 0 to 1"):
        with_wrong_labels(y, 20, 10)
    with pytest.raises(ValueError, match="100 examples: expected at least 1200, 600 to train and 600 to validate"):
        split_for_overfitting(x[:100], y[:100])
    with pytest.raises(ValueError, match="0 training and 1797 validation examples: expected some of both"):
        train(wide_network(64, 8, 10), (x[:0], y[:0]), (x, y), steps=1)
