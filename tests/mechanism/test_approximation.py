"""One hidden layer comes as near to a curve as its width allows: built by hand, by chance and by learning."""

import math

import pytest
import torch

from kit.mechanism.approximation import (
    by_bends,
    by_chance,
    by_descent,
    by_lines,
    by_steps,
    error_by_width,
    grid,
    largest_error,
    order,
    wave,
)

WIDTHS = [8, 16, 32, 64, 128, 256]


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def test_without_an_activation_a_thousand_units_are_one_straight_line():
    errors = error_by_width(by_lines, wave, [1, 10, 1000])
    assert max(errors.values()) == pytest.approx(min(errors.values()), rel=1e-9)
    assert errors[1000] > 0.9


def test_steps_set_by_hand_err_like_one_over_the_width():
    errors = error_by_width(by_steps, wave, WIDTHS)
    assert 0.9 < order(errors) < 1.1
    steepest = 2 * math.pi + 0.5 * 6 * math.pi
    assert all(error <= 1.01 * steepest / 2 / width for width, error in errors.items())


def test_bends_set_by_hand_err_like_one_over_the_width_squared():
    errors = error_by_width(by_bends, wave, WIDTHS)
    assert 1.9 < order(errors) < 2.1
    most_bent = (2 * math.pi) ** 2 + 0.5 * (6 * math.pi) ** 2
    assert all(error <= most_bent / 8 / width**2 for width, error in errors.items())


def test_a_curve_with_a_corner_is_met_too_though_not_as_fast_as_a_smooth_one():
    corner = lambda x: (x - 1 / 3).abs()  # noqa: E731
    errors = error_by_width(by_bends, corner, WIDTHS)
    assert errors[256] < 0.002
    assert 0.9 < order(errors) < 1.2


def test_the_chain_of_bends_goes_through_the_curve_at_every_knot():
    x = torch.linspace(0, 1, 17, dtype=torch.float64)[:, None]
    torch.testing.assert_close(by_bends(wave, 16)(x), wave(x), rtol=0, atol=1e-12)


def test_the_built_network_is_an_ordinary_one_that_learns_on():
    network = by_bends(wave, 8)
    assert [tuple(p.shape) for p in network.parameters()] == [(8, 1), (8,), (1, 8), (1,)]
    assert network.backward(torch.ones_like(network(grid(5)))).shape == (5, 1)
    assert all(p.grad.shape == p.shape for p in network.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_random_bends_will_do_if_there_are_enough_of_them(seed):
    errors = error_by_width(lambda curve, width: by_chance(curve, width, dice(seed)), wave, [8, 64, 512])
    assert errors[8] > 5 * errors[64] > 25 * errors[512]
    assert errors[512] < 0.005


@pytest.mark.parametrize("seed", range(3))
def test_descent_finds_a_good_fit_when_the_layer_is_wide_and_none_when_it_is_narrow(seed):
    narrow, wide = (largest_error(by_descent(wave, width, generator=dice(seed)), wave) for width in (2, 128))
    assert narrow > 1
    assert wide < 0.08


def test_the_order_is_read_off_a_power_law():
    assert order({width: 3 / width**2 for width in WIDTHS}) == pytest.approx(2)


def test_what_cannot_be_done_is_refused_in_words():
    for build in (by_steps, by_bends, by_chance):
        with pytest.raises(ValueError, match="width 0: a hidden layer has at least 1 unit"):
            build(wave, 0)
    with pytest.raises(ValueError, match="expected those of at least two widths, all above 0"):
        order({8: 0.1})
