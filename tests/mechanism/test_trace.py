"""The trace finds the first difference of two trainings, and so the mistake in one of them."""

import random

import pytest
import torch
from torch import nn

from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.loop import Learner, backward_by_hand
from kit.mechanism.optimizers import SGD, AdaGrad, Adam
from kit.mechanism.trace import Trace, digest, first_difference


def batches(seed=0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, 6, 6, generator=generator)
    y = (x[:, 0, :3].mean((1, 2)) > x[:, 0, 3:].mean((1, 2))).long()
    return DataLoader(Dataset(x, y), 8, shuffle=True, rng=random.Random(seed))


def model():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))


def trained(change=lambda net, optimizer: None, optimizer=SGD, seed=0, keep=lambda step: step, predict=None):
    """The steps of a training with a frozen body except its batch norm; `change` makes a mistake."""
    net, trace = model(), Trace(keep)
    net[0][0].requires_grad_(False)
    opt = optimizer(list(net.parameters()), lr=0.1, momentum=0.9, weight_decay=0.1, decoupled=True)
    change(net, opt)
    call = predict or (lambda net, x: net(x))
    Learner(net, batches(seed), batches(seed), nn.CrossEntropyLoss(), opt, predict=call).fit(2, [trace])
    return trace.steps


class DecayAfterMomentum(SGD):
    """The mistake: weight decay after the step, not before it."""

    def update(self, p, grad, state, group):
        p.div_(1 - group["lr"] * group["weight_decay"])
        super().update(p, grad, state, group)
        p.mul_(1 - group["lr"] * group["weight_decay"])


def forget_zero_grad(net, optimizer):
    optimizer.zero_grad = lambda: None


def leave_trainable(net, optimizer):
    net[0][0].requires_grad_(True)


def norm_in_eval_mode(net, x):
    net[0][1].eval()
    return net(x)


def test_two_equal_trainings_have_no_difference():
    assert first_difference(trained(), trained()) is None


FAULTS = {
    "zero_grad forgotten": ({"change": forget_zero_grad}, 1, "gradient of 0.1.weight"),
    "weight decay after momentum": ({"optimizer": DecayAfterMomentum}, 0, "parameter 0.1.weight"),
    "batch norm in eval mode": ({"predict": norm_in_eval_mode}, 0, "loss"),
    "frozen layer left trainable": ({"change": leave_trainable}, 0, "gradient of 0.0.weight"),
    "data in another order": ({"seed": 1}, 0, "batch x"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_found(fault):
    planted, step, name = FAULTS[fault]
    difference = first_difference(trained(), trained(**planted))
    assert (difference.step, difference.name) == (step, name)


def test_the_difference_has_the_element_and_both_values():
    first, second = trained(), trained()
    weight = second[3]["parameter 1.2.weight"]
    weight[1, 2] = torch.nextafter(weight[1, 2], torch.tensor(9.0))
    difference = first_difference(first, second)
    assert (difference.step, difference.name, difference.index) == (3, "parameter 1.2.weight", (1, 2))
    assert difference.first < difference.second
    assert str(difference).startswith("step 3: parameter 1.2.weight at [1, 2] is ")


def test_minus_zero_and_zero_are_equal_numbers_but_not_equal_bits():
    difference = first_difference([{"loss": torch.tensor([0.0])}], [{"loss": torch.tensor([-0.0])}])
    assert difference.index == (0,)


def test_nan_equals_nan_when_the_bits_are_equal():
    assert first_difference([{"loss": torch.tensor(float("nan"))}], [{"loss": torch.tensor(float("nan"))}]) is None


def test_a_number_and_a_tensor_are_different():
    difference = first_difference([{"loss": torch.tensor(1.0)}], [{"loss": 1.0}])
    assert (difference.name, difference.first, difference.second) == ("loss", torch.tensor(1.0), 1.0)


def test_a_run_that_ends_early_is_a_difference():
    steps = trained()
    difference = first_difference(steps, steps[:7])
    assert (difference.step, difference.name, difference.first, difference.second) == (7, "number of steps", 10, 7)


def test_a_tensor_that_is_missing_is_a_difference():
    difference = first_difference([{"loss": 1.0}], [{}])
    assert str(difference) == "step 0: loss is present in the first run and missing in the second"


def test_of_two_runs_with_different_names_the_longer_gives_the_order():
    one, other, short = {"x": 1, "y": 2}, {"x": 1, "z": 2}, {"x": 1}
    assert first_difference([one], [other]).name == "y"
    assert first_difference([other], [one]).name == "z"
    assert str(first_difference([short], [one])) == "step 0: y is missing in the first run and present in the second"


@pytest.mark.parametrize(
    ("optimizer", "state"), [(SGD, ["velocity"]), (Adam, ["mean", "squares", "step"]), (AdaGrad, ["squares"])]
)
def test_a_step_has_every_value_in_the_order_of_computation(optimizer, state):
    torch.manual_seed(0)
    net, trace = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3)), Trace()
    steps = optimizer(
        [[net[0].weight], list(net[1].parameters())], lr=0.1, **{"momentum": 0.9} if optimizer is SGD else {}
    )
    data = DataLoader(Dataset(torch.randn(8, 4), torch.arange(8) % 3), 8)
    Learner(net, data, data, nn.CrossEntropyLoss(), steps).fit(1, [trace])
    names = ["0.weight", "1.weight", "1.bias"]
    assert list(trace.steps[0]) == [
        *("batch x", "batch y", "lr of group 0", "lr of group 1"),
        *(["momentum"] if optimizer is not AdaGrad else []),
        "loss",
        *(f"gradient of {name}" for name in names),
        *(f"statistic 1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")),
        *(f"{key} of {name}" for name in names for key in state),
        *(f"parameter {name}" for name in names),
    ]
    assert trace.steps[0].get("momentum", 0.9) == 0.9 and trace.steps[0]["lr of group 1"] == 0.1
    (row,) = trace.rows
    assert list(row) == [
        "step",
        "batch",
        "loss",
        *(f"{key} {name}" for name in names for key in ("gradient", "update")),
    ]
    assert (
        row["loss"] == trace.steps[0]["loss"].item()
        and row["gradient 1.bias"] == trace.steps[0]["gradient of 1.bias"].norm()
    )
    assert row["batch"] == digest(trace.steps[0])["batch x"][:8] and len(row["batch"]) == 8


def test_digests_are_small_and_see_the_same_difference():
    first, second = trained(keep=digest), trained(keep=digest, change=forget_zero_grad)
    assert first_difference(first, trained(keep=digest)) is None
    assert first_difference(first, second).name == "gradient of 0.1.weight"


def test_rows_are_a_table_of_loss_gradient_and_update():
    torch.manual_seed(0)
    net, trace = Sequential(Linear(4, 3), ReLU(), Linear(3, 2)), Trace()
    data = DataLoader(Dataset(torch.randn(8, 4), torch.randint(0, 2, (8,))), 4)
    Learner(net, data, data, SoftmaxCrossEntropy(), SGD(net.parameters(), lr=0.1), backward_by_hand).fit(1, [trace])
    rows = trace.rows
    assert [row["step"] for row in rows] == [0, 1]
    assert len({row["batch"] for row in rows}) == 2
    for row in rows:
        assert row["update 1.weight"] == pytest.approx(0.1 * row["gradient 1.weight"], rel=1e-5)
