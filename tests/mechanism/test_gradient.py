"""Gradient: measured derivatives and their error, and what gradient descent does with a good, small and large rate."""

import math

import pytest
import torch

from kit.mechanism.gradient import (
    bowl,
    difference_errors,
    gradient_descent,
    numerical_gradient,
    relative_error,
    saddle,
    two_minima,
    valley,
)


def point(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3, 2)])
@pytest.mark.parametrize("central", [True, False])
def test_the_measured_gradient_is_autograds_for_tensors_of_any_shape(shape, central):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def f(x):
        return (x.sin() * x.exp()).sum() ** 2

    judge = x.clone().requires_grad_()
    f(judge).backward()
    measured = numerical_gradient(f, x, step=1e-5 if central else 1e-8, central=central)
    assert measured.shape == shape
    assert relative_error(measured, judge.grad) < (1e-8 if central else 1e-5)


def test_x_is_as_before_in_every_bit_when_its_gradient_is_known():
    x = torch.rand(4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 1e-9
    before = x.clone()
    numerical_gradient(lambda x: (x**3).sum(), x)
    assert torch.equal(x, before)


def test_a_weight_inside_a_layer_can_be_measured_through_the_layer():
    layer = torch.nn.Linear(3, 2).double()
    x = torch.rand(5, 3, dtype=torch.float64)
    layer(x).square().sum().backward()
    measured = numerical_gradient(lambda _: layer(x).square().sum(), layer.weight)
    assert relative_error(measured, layer.weight.grad) < 1e-8


def test_a_view_that_is_not_contiguous_is_measured_right():
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3).T
    assert relative_error(numerical_gradient(lambda x: (x**2).sum(), x), 2 * x) < 1e-8


def test_a_partial_derivative_holds_everything_else_still():
    assert numerical_gradient(lambda x: x[0] * x[1], point(3, 4)).tolist() == pytest.approx([4, 3])


def test_a_step_ten_times_smaller_makes_forward_ten_and_central_a_hundred_times_better():
    (_, forward, central), (_, forward_10, central_10) = difference_errors(torch.exp, math.e, 1.0, [1e-2, 1e-3])
    assert forward / forward_10 == pytest.approx(10, rel=0.01)
    assert central / central_10 == pytest.approx(100, rel=0.01)


def test_a_step_too_small_drowns_in_rounding():
    (_, forward_good, central_good), (_, forward, central) = difference_errors(torch.exp, math.e, 1.0, [1e-6, 1e-12])
    assert forward > 10 * forward_good
    assert central > 1000 * central_good


def test_the_default_step_is_about_the_best_for_central_differences():
    errors = {step: error for step, _, error in difference_errors(torch.exp, math.e, 1.0, [1e-2, 1e-5, 1e-9])}
    assert min(errors, key=errors.get) == 1e-5


def test_float32_is_refused_because_its_rounding_eats_the_difference():
    with pytest.raises(ValueError, match=r"torch.float32 is mostly rounding: expected torch.float64; use .double\(\)"):
        numerical_gradient(torch.sum, torch.zeros(3))


@pytest.mark.parametrize("step", [0.0, -1e-5, math.nan])
def test_a_step_that_is_not_positive_is_refused(step):
    with pytest.raises(ValueError, match="expected a small positive number such as 1e-5"):
        numerical_gradient(torch.sum, point(1), step)


def test_relative_error_is_0_for_equal_and_1_for_unrelated_gradients():
    assert relative_error(point(1, 2), point(1, 2)) == 0
    assert relative_error(point(2, 0), point(0, 0)) == 1
    assert relative_error(point(1, 200), point(1, 202)) == pytest.approx(2 / 202)


def test_relative_error_forgives_the_rounding_of_a_gradient_that_is_zero():
    assert relative_error(point(0, 0), point(1e-13, -1e-12)) < 1e-6


def test_relative_error_is_never_small_where_there_is_a_nan():
    assert not relative_error(point(1, math.nan), point(1, 1)) < 1e-6


def test_gradients_of_different_shapes_are_not_compared():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(2, 1\): expected the same"):
        relative_error(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="empty"):
        relative_error(torch.zeros(0), torch.zeros(0))


def test_descent_walks_down_the_bowl_to_its_minimum():
    path = gradient_descent(bowl, point(-3, 4), lr=0.1, steps=100)
    heights = bowl(path.T)
    assert path.shape == (101, 2) and path[0].tolist() == [-3, 4]
    assert (heights[1:] < heights[:-1]).all()
    assert path[-1].abs().max() < 1e-8


def test_each_step_on_the_bowl_shrinks_the_distance_by_the_same_factor():
    path = gradient_descent(bowl, point(-3, 4), lr=0.1, steps=10)
    torch.testing.assert_close(path[1:], path[:-1] * 0.8, rtol=1e-8, atol=0)


def test_a_rate_too_small_gets_nowhere_and_one_too_large_runs_away():
    start = point(-3, 4)
    small, good, large = (gradient_descent(bowl, start, lr, 50)[-1].norm().item() for lr in (1e-5, 0.3, 1.1))
    assert small > 0.99 * 5
    assert good < 1e-10
    assert large > 1000 * 5


def test_the_steepest_direction_of_the_whole_sets_the_limit_of_the_rate():
    """Across the valley the slope is 2y, so that rates over 1 diverge there, while along it 0.1x would bear 20."""
    path = gradient_descent(valley, point(-7, 2), lr=1.01, steps=200)
    assert path[-1, 1].abs() > 50
    assert path[-1, 0].abs() < 1e-6


def test_in_the_valley_downhill_hardly_points_to_the_minimum():
    start = point(-7, 2)
    downhill, home = -numerical_gradient(valley, start), -start
    angle = torch.rad2deg(torch.acos(downhill @ home / (downhill.norm() * home.norm())))
    assert angle > 60


def test_a_local_minimum_holds_what_comes_from_its_side():
    left = gradient_descent(two_minima, point(-1.5, 1), 0.05, 300)[-1]
    right = gradient_descent(two_minima, point(1.5, 1), 0.05, 300)[-1]
    for end in (left, right):
        assert numerical_gradient(two_minima, end).abs().max() < 1e-6
    assert left[0] < -1 < 0.9 < right[0]
    assert two_minima(right) > two_minima(left) + 0.5


def test_a_saddle_stops_descent_on_its_ridge_and_one_nudge_frees_it():
    on_ridge = gradient_descent(saddle, point(1, 0), 0.1, 100)[-1]
    nudged = gradient_descent(saddle, point(1, 1e-6), 0.1, 100)[-1]
    assert on_ridge.abs().max() < 1e-8
    assert nudged[1] > 10


def test_a_gradient_that_is_known_can_be_given():
    measured = gradient_descent(bowl, point(1, 1), 0.1, 5)
    known = gradient_descent(bowl, point(1, 1), 0.1, 5, gradient=lambda x: 2 * x)
    torch.testing.assert_close(measured, known, rtol=1e-9, atol=0)


@pytest.mark.parametrize("lr", [0.0, -0.1, math.nan])
def test_a_learning_rate_that_is_not_positive_is_refused(lr):
    with pytest.raises(ValueError, match=f"learning rate is {lr}: expected a positive number such as 0.1"):
        gradient_descent(bowl, point(1, 1), lr, 5)


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="steps is -1: expected 0 or more"):
        gradient_descent(bowl, point(1, 1), 0.1, -1)


def test_the_landscapes_take_a_whole_grid_of_points():
    grid = torch.rand(2, 5, 7, dtype=torch.float64)
    for landscape in (bowl, valley, saddle, two_minima):
        assert landscape(grid).shape == (5, 7)
        assert landscape(grid)[3, 4] == landscape(grid[:, 3, 4])
