"""The loop: the same for networks of our layers and for torch modules, and its callbacks."""

import random
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

from kit.mechanism.autograd import Variable
from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.loop import (
    Callback,
    GradientAccumulation,
    GradientClip,
    Learner,
    backward_by_autograd,
    backward_by_hand,
    fit,
    train_epoch,
    validate,
)
from kit.mechanism.optimizers import SGD, Adam


def digits(only=range(10)):
    bunch = load_digits()
    x, y = torch.tensor(bunch.data, dtype=torch.float64) / 16, torch.tensor(bunch.target)
    chosen = torch.isin(y, torch.tensor(list(only)))
    return Dataset(x[chosen], y[chosen]).split(0.25, torch.Generator().manual_seed(0))


def loaders(train, valid, batch=32):
    return DataLoader(train, batch, shuffle=True, rng=random.Random(0)), DataLoader(valid, 512)


def network(inputs=64, classes=10, hidden=50):
    torch.manual_seed(0)
    return Sequential(Linear(inputs, hidden), ReLU(), Linear(hidden, classes)).to(torch.float64)


def as_torch(net):
    """The same network of torch modules, from the same weights."""
    first, last = net.layers[0], net.layers[2]
    theirs = nn.Sequential(nn.Linear(*first.weight.T.shape), nn.ReLU(), nn.Linear(*last.weight.T.shape)).double()
    with torch.no_grad():
        for parameter, start in zip(theirs.parameters(), net.parameters(), strict=True):
            parameter.copy_(start)
    return theirs


def test_three_or_seven():
    train, valid = digits(only=(3, 7))
    net = network()
    rows = fit(5, net, *loaders(train, valid), SoftmaxCrossEntropy(), SGD(net.parameters(), lr=0.1))
    assert rows[-1]["accuracy"] > 0.97


def test_all_ten_digits():
    net = network()
    rows = fit(15, net, *loaders(*digits()), SoftmaxCrossEntropy(), SGD(net.parameters(), lr=0.1, momentum=0.9))
    assert rows[0]["train_loss"] > 5 * rows[-1]["train_loss"]
    assert rows[-1]["accuracy"] > 0.95


def test_a_table():
    """A DataFrame becomes a tensor of (rows, columns), each column brought to mean 0 and spread 1."""
    frame = load_breast_cancer(as_frame=True).frame
    columns = frame.drop(columns="target")
    values = ((columns - columns.mean()) / columns.std()).to_numpy()
    data = Dataset(torch.tensor(values), torch.tensor(frame["target"].to_numpy()))
    net = network(inputs=30, classes=2, hidden=20)
    parts = loaders(*data.split(0.25, torch.Generator().manual_seed(0)))
    rows = fit(10, net, *parts, SoftmaxCrossEntropy(), Adam(net.parameters(), lr=1e-2))
    assert rows[-1]["accuracy"] > 0.95


def test_our_backward_and_pytorchs_autograd_train_the_same_network():
    train, valid = digits()
    net = network()
    judge = as_torch(net)
    first = fit(3, net, *loaders(train, valid), SoftmaxCrossEntropy(), SGD(net.parameters(), lr=0.1))
    optimizer = SGD(judge.parameters(), lr=0.1)
    second = fit(3, judge, *loaders(train, valid), nn.CrossEntropyLoss(), optimizer, backward_by_autograd)
    for ours, theirs in zip(first, second, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)
    for mine, theirs in zip(net.parameters(), judge.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-9, atol=1e-12)


def test_our_own_autograd_trains_the_same_network_too():
    train, _ = digits()
    net, judge = network(), network()
    first = train_epoch(net, loaders(train, train)[0], SoftmaxCrossEntropy(), SGD(net.parameters(), lr=0.1))
    batches = [(Variable(x), y) for x, y in loaders(train, train)[0]]
    loss = SoftmaxCrossEntropy()
    for x, y in batches:
        loss(judge(x), y).backward()
        for p in judge.parameters():
            p.add_(p.grad, alpha=-0.1)
            p.grad = None
    assert first > 0
    for mine, theirs in zip(net.parameters(), judge.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def learner(net, train, valid, **more):
    return Learner(net, train, valid, SoftmaxCrossEntropy(), SGD(net.parameters(), lr=0.1), backward_by_hand, **more)


def test_a_learner_without_callbacks_is_equal_to_fit():
    nets = network(), network()
    rows = fit(3, nets[0], *loaders(*digits()), SoftmaxCrossEntropy(), SGD(nets[0].parameters(), lr=0.1))
    learner(nets[1], *loaders(*digits())).fit(3)
    assert rows[-1]["accuracy"] > 0.8
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_learner_reports_what_fit_reports_also_where_the_last_batch_is_smaller():
    """33 examples in batches of 16, 16 and 1: each batch counts by its examples."""
    train, valid = digits()
    train = Dataset(*train[list(range(33))])
    nets = network(), network()
    rows = fit(2, nets[0], *loaders(train, valid, 16), SoftmaxCrossEntropy(), SGD(nets[0].parameters(), lr=0.1))
    learn = learner(nets[1], *loaders(train, valid, 16))
    learn.fit(2)
    names = ("train_loss", "valid_loss", "accuracy")
    assert learn.rows == [{name: row[name] for name in names} for row in rows]


class Spy(Callback):
    """Writes down what happened."""

    def __init__(self):
        self.events, self.progress = [], []

    def before_batch(self, learner):
        self.events.append("batch")
        self.progress.append(learner.progress)

    def before_step(self, learner):
        self.events.append("gradient")

    def after_step(self, learner):
        self.events.append("step")

    def after_epoch(self, learner):
        self.events.append("epoch")


def test_callbacks_are_called_in_order_and_progress_goes_from_0_to_1():
    spy, (train, valid) = Spy(), loaders(*digits(), batch=512)
    learner(network(), train, valid).fit(2, [spy])
    assert spy.events == (["batch", "gradient", "step"] * len(train) + ["epoch"]) * 2
    assert spy.progress == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


def test_loss_and_accuracy_are_those_of_all_examples_at_once_whatever_the_batches():
    net, (_, valid) = network(), digits()
    scores = net(valid.x)
    loss, accuracy = nn.functional.cross_entropy(scores, valid.y), (scores.argmax(1) == valid.y).double().mean()
    batches = DataLoader(valid, 100)  # the last one is smaller
    assert validate(net, batches, SoftmaxCrossEntropy()) == pytest.approx((loss.item(), accuracy.item()))
    trained = train_epoch(net, batches, SoftmaxCrossEntropy(), SGD(net.parameters(), lr=1e-12))
    assert trained == pytest.approx(loss.item())


@pytest.mark.parametrize(("examples", "batch", "group"), [(1280, 32, 128), (8, 1, 1)])
def test_accumulated_batches_step_like_one_large_batch(examples, batch, group):
    train, valid = digits()
    train = Dataset(*train[list(range(examples))])
    nets = network(), network()
    small, large = (DataLoader(train, size) for size in (batch, group))
    learner(nets[0], small, DataLoader(valid, 512)).fit(2, [GradientAccumulation(group)])
    learner(nets[1], large, DataLoader(valid, 512)).fit(2)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_an_incomplete_group_is_dropped_at_the_end_of_a_fit():
    """96 examples in groups of 64: each fit takes one step, of its first two batches."""
    train, valid = digits()
    train = Dataset(*train[list(range(96))])
    batches, accumulate = DataLoader(train, 32), GradientAccumulation(64)
    nets = network(), network()
    twice = learner(nets[0], batches, DataLoader(valid, 512))
    for _ in range(2):
        twice.fit(1, [accumulate])
        assert all(not p.grad.any() for p in nets[0].parameters())
    large = DataLoader(Dataset(*train[list(range(64))]), 64)
    learner(nets[1], large, DataLoader(valid, 512)).fit(2)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


class GradientLength(Callback):
    """Writes down how long the whole gradient is when the step is taken."""

    def __init__(self):
        self.lengths = []

    def after_step(self, learner):
        grads = [p.grad.flatten() for p in learner.model.parameters()]
        self.lengths.append(torch.cat(grads).norm().item())


def test_clipping_scales_gradients_that_are_too_long_and_no_others():
    lengths = {}
    for limit in (0.5, 1e9):
        watch = GradientLength()
        learner(network(), *loaders(*digits())).fit(1, [GradientClip(limit), watch])
        lengths[limit] = watch.lengths
    assert max(lengths[1e9]) > 0.5
    assert max(lengths[0.5]) <= 0.5 + 1e-9


@pytest.mark.parametrize("limit", [0.5, 3.0, 1e9])
def test_clipped_gradients_are_pytorchs_in_every_bit(limit):
    nets = as_torch(network()), as_torch(network())
    for net in nets:
        for number, p in enumerate(net.parameters()):
            p.grad = torch.full_like(p, 0.1) * number
    nets[0][2].bias.grad = nets[1][2].bias.grad = None
    GradientClip(limit).before_step(SimpleNamespace(model=nets[0]))
    nn.utils.clip_grad_norm_(nets[1].parameters(), limit)
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert ours.grad is theirs.grad is None or torch.equal(ours.grad, theirs.grad)


def test_validation_changes_nothing():
    _, valid = loaders(*digits())
    net = network()
    before = [p.clone() for p in net.parameters()]
    validate(net, valid, SoftmaxCrossEntropy())
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert all(p.grad is None for p in net.parameters())


def test_a_loss_that_becomes_nan_stops_the_training():
    net = network()
    with pytest.raises(ValueError, match="NaN"):
        fit(5, net, *loaders(*digits()), SoftmaxCrossEntropy(), SGD(net.parameters(), lr=1e200))


def test_an_iterator_that_is_used_up_is_refused():
    net = network()
    with pytest.raises(ValueError, match="there was no batch: the data are empty, or an iterator that is used up"):
        train_epoch(net, iter([]), SoftmaxCrossEntropy(), SGD(net.parameters(), lr=0.1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientAccumulation(0), "accumulate over 0 examples: expected at least 1"),
        (lambda: GradientClip(0), "clip to norm 0: expected a positive number"),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
