"""Overfitting: a network that memorises its examples, and the effect of each remedy."""

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.layers import Linear, Sequential
from kit.mechanism.overfitting import Curves, compare_remedies, flip_labels, split_for_overfitting, train


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


def test_a_comparison_repeats_by_its_seed_and_leaves_the_generator_as_it_was():
    x, y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    parts = ((x[:10], y[:10]), (x[:30], y[:30]), (x[30:], y[30:]))
    first = compare_remedies(*parts, width=8, seed=1)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    assert compare_remedies(*parts, width=8, seed=1) == first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_all_four_start_with_the_same_weights(curves):
    assert len({c.validation_loss[0] for c in curves.values()}) == 1


def test_flipped_labels_are_wrong_with_the_given_probability():
    y = torch.arange(10).repeat(1000)
    changed = flip_labels(y, 0.2, 10, torch.Generator().manual_seed(0))
    assert (changed != y).double().mean().item() == pytest.approx(0.2, abs=0.02)
    assert changed.min() >= 0 and changed.max() <= 9
    assert (flip_labels(y, 1.0, 10) != y).all()


def test_the_100_are_part_of_the_600_and_the_validation_examples_are_others_with_correct_labels():
    x, y = torch.arange(1300.0)[:, None], torch.arange(1300) % 10
    (few_x, few_y), (more_x, more_y), (valid_x, valid_y) = split_for_overfitting(x, y)
    assert (len(few_x), len(more_x), len(valid_x)) == (100, 600, 600)
    assert torch.equal(few_x, more_x[:100]) and torch.equal(few_y, more_y[:100])
    assert len({*more_x.flatten().tolist(), *valid_x.flatten().tolist()}) == 1200
    assert torch.equal(valid_y, y[valid_x.flatten().long()])
    splits = [split_for_overfitting(x, y, seed)[1] for seed in range(20)]
    wrong = [(labels != y[rows.flatten().long()]).double().mean().item() for rows, labels in splits]
    assert sum(wrong) / 20 == pytest.approx(0.2, abs=0.01)
    assert more_y.max() == 9
    assert torch.equal(split_for_overfitting(x, y, seed=0)[1][1], more_y)
    assert not torch.equal(split_for_overfitting(x, y, seed=1)[1][1], more_y)
    assert len(split_for_overfitting(x[:1200], y[:1200])) == 3


def test_training_is_pytorchs_sgd_on_the_whole_set_measured_every_twentieth_step():
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2
    torch.manual_seed(0)
    network = Sequential(Linear(4, 2))
    weight, bias = (p.clone().requires_grad_() for p in network.parameters())
    curves = train(network, (x[:20], y[:20]), (x[20:], y[20:]), steps=40, weight_decay=0.1)
    judge = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9, weight_decay=0.1)
    losses, measured = [], []
    for step in range(41):
        if step:
            judge.zero_grad()
            losses[0].backward()
            judge.step()
        scores = x @ weight.T + bias
        losses = [torch.nn.functional.cross_entropy(scores[part], y[part]) for part in (slice(20), slice(20, None))]
        if step % 20 == 0:
            measured.append(
                (*(loss.item() for loss in losses), (scores[20:].argmax(1) != y[20:]).double().mean().item())
            )
    for ours, theirs in zip(network.parameters(), (weight, bias), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
    found = zip(curves.training_loss, curves.validation_loss, curves.validation_error, strict=True)
    for ours, theirs in zip(found, measured, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="100 examples: expected at least 1200, 600 for training and 600 for"):
        split_for_overfitting(torch.zeros(100, 2), torch.zeros(100))
