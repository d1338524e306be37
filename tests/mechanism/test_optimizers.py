"""Every optimizer compared with PyTorch's and fastai's over 100 steps."""

from itertools import combinations

import fastai.optimizer as fastai
import pytest
import torch

from kit.mechanism.gradient import gradient_descent
from kit.mechanism.landscapes import LANDSCAPES
from kit.mechanism.optimizers import (
    EXAMPLES,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    RMSprop,
    get_momentum,
    optimize,
    set_momentum,
)

STEPS, VALLEY = 100, LANDSCAPES["stretched valley"]


def start():
    """Two parameters, and their targets: the loss pulls them there, unevenly."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((4, 3), (3,))]


def gradients(step, parameters):
    """A different gradient at each step, as mini-batches give: curvature times distance, plus noise."""
    generator = torch.Generator().manual_seed(step)
    return [3 * p.detach() + torch.randn(p.shape, generator=generator) for p in parameters]


def after_100_steps(make):
    parameters = start()
    for p in parameters:
        p.requires_grad_()
    optimizer = make(parameters)
    for step in range(STEPS):
        for p, grad in zip(parameters, gradients(step, parameters), strict=True):
            p.grad = grad
        optimizer.step()
    return [p.detach() for p in parameters]


def largest_difference(make, judge):
    pairs = zip(after_100_steps(make), after_100_steps(judge), strict=True)
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


TORCH = torch.optim
EQUAL_TO_TORCH = {
    "SGD": (lambda p: SGD(p, 0.1), lambda p: TORCH.SGD(p, 0.1)),
    "momentum": (lambda p: SGD(p, 0.1, momentum=0.9), lambda p: TORCH.SGD(p, 0.1, momentum=0.9)),
    "Nesterov": (
        lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True),
        lambda p: TORCH.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "momentum, coupled decay": (
        lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        lambda p: TORCH.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    ),
    "AdaGrad": (lambda p: AdaGrad(p, 0.1), lambda p: TORCH.Adagrad(p, 0.1)),
    "RMSprop": (lambda p: RMSprop(p, 0.01), lambda p: TORCH.RMSprop(p, 0.01)),
}


@pytest.mark.parametrize("name", EQUAL_TO_TORCH)
def test_equal_to_pytorch_in_every_bit(name):
    assert largest_difference(*EQUAL_TO_TORCH[name]) == 0


def _fastai(kind, **settings):
    return lambda p: getattr(fastai, kind)([p], **settings)


EQUAL_TO_FASTAI = {
    "SGD": (lambda p: SGD(p, 0.1), _fastai("SGD", lr=0.1)),
    "momentum": (lambda p: SGD(p, 0.1, momentum=0.9), _fastai("SGD", lr=0.1, mom=0.9)),
    "momentum, decoupled decay": (
        lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01, decoupled=True),
        _fastai("SGD", lr=0.1, mom=0.9, wd=0.01),
    ),
    "momentum, coupled decay": (
        lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        _fastai("SGD", lr=0.1, mom=0.9, wd=0.01, decouple_wd=False),
    ),
    "RMSprop": (lambda p: RMSprop(p, 0.01), _fastai("RMSProp", lr=0.01)),
    "Adam": (lambda p: Adam(p, 0.01), _fastai("Adam", lr=0.01, wd=0.0)),
    "Adam, coupled decay": (
        lambda p: Adam(p, 0.01, weight_decay=0.01),
        _fastai("Adam", lr=0.01, wd=0.01, decouple_wd=False),
    ),
    "AdamW": (lambda p: AdamW(p, 0.01), _fastai("Adam", lr=0.01, wd=0.01)),
}


@pytest.mark.parametrize("name", EQUAL_TO_FASTAI)
def test_equal_to_fastai_in_every_bit(name):
    assert largest_difference(*EQUAL_TO_FASTAI[name]) == 0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda p: Adam(p, 0.01, betas=(0.9, 0.99), eps=1e-8),
            lambda p: TORCH.Adam(p, 0.01, betas=(0.9, 0.99), eps=1e-8),
        ),
        (
            lambda p: AdamW(p, 0.01, betas=(0.9, 0.99), eps=1e-8),
            lambda p: TORCH.AdamW(p, 0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01),
        ),
    ],
)
def test_adam_differs_from_pytorchs_by_rounding_only(ours, theirs):
    """PyTorch updates the mean by lerp and divides after the square root: the same formula, rounded at other places.

    In float32 the parameters, about 1, end 3e-7 apart.
    """
    assert 0 < largest_difference(ours, theirs) < 2e-6


def test_coupled_and_decoupled_decay_are_equal_for_plain_sgd_and_differ_for_adam():
    plain = [lambda p, d=d: SGD(p, 0.1, weight_decay=0.01, decoupled=d) for d in (False, True)]
    adam = [lambda p, d=d: Adam(p, 0.01, weight_decay=0.1, decoupled=d) for d in (False, True)]
    assert largest_difference(*plain) < 1e-6
    assert largest_difference(*adam) > 1e-3


def test_groups_have_rates_of_their_own():
    slow, fast = torch.ones(2), torch.ones(2)
    optimizer = SGD([{"params": [slow], "lr": 0.01}, {"params": [fast]}], lr=0.1)
    slow.grad, fast.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(slow, torch.full((2,), 0.99))
    torch.testing.assert_close(fast, torch.full((2,), 0.9))


def test_gradients_are_set_to_zero_and_none_stays_none():
    first, second = torch.ones(2), torch.ones(2)
    optimizer = SGD([[first], [second]], lr=0.1)
    first.grad = torch.ones(2)
    optimizer.zero_grad()
    assert first.grad.tolist() == [0, 0] and second.grad is None


def test_a_parameter_without_a_gradient_stays():
    p = torch.ones(2)
    SGD([p], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(p, torch.ones(2))


def test_the_steps_of_adagrad_shrink_and_those_of_rmsprop_do_not():
    """Under a constant gradient of 1, AdaGrad's n-th step is lr / sqrt(n); RMSprop's stays at lr."""
    moved = {}
    for kind in (AdaGrad, RMSprop):
        p = torch.zeros(1)
        optimizer = kind([p], lr=0.1)
        for _ in range(1000):
            before, p.grad = p.clone(), torch.ones(1)
            optimizer.step()
        moved[kind] = (before - p).item()
    assert moved[AdaGrad] == pytest.approx(0.1 / 1000**0.5, rel=1e-3)
    assert moved[RMSprop] == pytest.approx(0.1, rel=1e-2)


def test_a_path_over_a_landscape_is_that_of_gradient_descent():
    walk = optimize(EXAMPLES["SGD"], VALLEY, 30)
    start = torch.tensor(VALLEY.start, dtype=torch.float64)
    torch.testing.assert_close(walk, gradient_descent(VALLEY.function, start, 0.95, 30, VALLEY.gradient))


def test_each_example_is_the_optimizer_that_its_name_says_and_goes_downhill_on_a_path_of_its_own():
    walks = {name: optimize(make, VALLEY, 30) for name, make in EXAMPLES.items()}
    assert all(VALLEY.function(walk[-1]) < VALLEY.function(walk[0]) / 2 for walk in walks.values())
    assert all((one - other).abs().max() > 0.01 for one, other in combinations(walks.values(), 2))
    made = {name: make([torch.zeros(1)]) for name, make in EXAMPLES.items()}
    assert [type(optimizer) for optimizer in made.values()] == [SGD, SGD, SGD, AdaGrad, RMSprop, Adam, AdamW]
    settings = [made[name].param_groups[0] for name in ("SGD", "momentum", "Nesterov")]
    assert [(group["momentum"] > 0, group["nesterov"]) for group in settings] == [
        (False, False), (True, False), (True, True)
    ]  # fmt: skip


def test_momentum_is_read_and_set_for_sgd_and_adam():
    for optimizer in (SGD([torch.ones(1)], lr=0.1, momentum=0.9), Adam([torch.ones(1)], lr=0.1)):
        set_momentum(optimizer.param_groups[0], 0.8)
        assert get_momentum(optimizer.param_groups[0]) == 0.8


@pytest.mark.parametrize("lr", [0, -0.1, float("nan"), float("inf")])
def test_a_learning_rate_that_cannot_be_is_refused(lr):
    with pytest.raises(
        ValueError, match=f"learning rate {lr}: expected a positive number; try 0.1 for SGD, 0.001 for Adam"
    ):
        SGD([torch.ones(1)], lr=lr)


def test_no_parameters_are_refused():
    with pytest.raises(ValueError, match="no parameters to optimise; pass network.parameters()"):
        SGD([], lr=0.1)


def test_a_momentum_of_one_is_refused():
    with pytest.raises(ValueError, match="momentum 1.0: expected the weight of past values, from 0 to below 1"):
        SGD([torch.ones(1)], lr=0.1, momentum=1.0)
