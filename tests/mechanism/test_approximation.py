"""A network with one hidden layer approximates a curve, with computed weights and with learned ones."""

import math

import pytest
import torch

from kit.mechanism import approximation
from kit.mechanism.approximation import (
    error_by_width,
    largest_error,
    piecewise_linear_network,
    step_network,
    trained_network,
    wave,
)
from kit.mechanism.schedules import cosine

WIDTHS = [8, 16, 32, 64, 128, 256]


def order(errors):
    """p of error ~ width^-p, from the first and the last width."""
    (first, *_, last), (wide, *_, narrow) = errors.values(), reversed(errors)
    return math.log(first / last) / math.log(wide / narrow)


def test_the_error_of_steps_is_proportional_to_one_over_the_width():
    errors = error_by_width(step_network, wave, WIDTHS)
    assert 0.9 < order(errors) < 1.1
    steepest = 2 * math.pi + 0.5 * 6 * math.pi
    assert all(error <= 1.01 * steepest / 2 / width for width, error in errors.items())


def test_the_error_of_lines_is_proportional_to_one_over_the_width_squared():
    errors = error_by_width(piecewise_linear_network, wave, WIDTHS)
    assert 1.9 < order(errors) < 2.1
    most_bent = (2 * math.pi) ** 2 + 0.5 * (6 * math.pi) ** 2
    assert all(error <= most_bent / 8 / width**2 for width, error in errors.items())


def test_a_curve_with_a_corner_is_approximated_too_but_more_slowly():
    corner = lambda x: (x - 1 / 3).abs()  # noqa: E731
    errors = error_by_width(piecewise_linear_network, corner, WIDTHS)
    assert errors[256] < 0.002
    assert 0.9 < order(errors) < 1.2


@pytest.mark.parametrize("width", [1, 16])
def test_the_lines_go_through_the_curve_at_every_knot(width):
    x = torch.linspace(0, 1, width + 1, dtype=torch.float64)[:, None]
    torch.testing.assert_close(piecewise_linear_network(wave, width)(x), wave(x), rtol=0, atol=1e-12)


def test_the_network_with_computed_weights_can_be_trained():
    network = piecewise_linear_network(wave, 8)
    assert [tuple(p.shape) for p in network.parameters()] == [(8, 1), (8,), (1, 8), (1,)]
    assert network.backward(torch.ones_like(network(torch.rand(5, 1, dtype=torch.float64)))).shape == (5, 1)
    assert all(p.grad.shape == p.shape for p in network.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_gradient_descent_finds_a_good_fit_with_a_wide_layer_and_not_with_a_narrow_one(seed):
    torch.manual_seed(seed)
    narrow, wide = (largest_error(trained_network(wave, width), wave) for width in (2, 128))
    assert narrow > 1
    assert wide < 0.08


def test_the_learning_rate_decreases_along_half_a_cosine(monkeypatch):
    rates = []

    class Watched(approximation.Adam):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            super().step()

    monkeypatch.setattr(approximation, "Adam", Watched)
    trained_network(wave, 2, steps=50)
    half_cosine = cosine(rates[0], 0)
    assert rates == pytest.approx([half_cosine(step / 50) for step in range(50)])


def test_a_width_of_zero_is_refused():
    for build in (step_network, piecewise_linear_network, trained_network):
        with pytest.raises(ValueError, match="width 0: a hidden layer has at least 1 unit"):
            build(wave, 0)
