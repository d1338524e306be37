"""Gradient: numerical derivatives and their errors, and gradient descent with good, small and large rates."""

import math

import pytest
import torch

from kit.mechanism.gradient import gradient_descent, numerical_gradient, relative_error
from kit.mechanism.landscapes import LANDSCAPES

bowl, valley, saddle, two_minima, _ = (landscape.function for landscape in LANDSCAPES.values())


def point(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def errors_of_exp(step):
    """The errors of the forward and the central difference of exp at 1."""
    return [abs(numerical_gradient(torch.exp, point(1), step, central).item() - math.e) for central in (False, True)]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3, 2)])
@pytest.mark.parametrize("central", [True, False])
def test_the_measured_gradient_is_autograds_for_tensors_of_any_shape(shape, central):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def f(x):
        return (x.sin() * x.exp()).sum() ** 2

    expected = x.clone().requires_grad_()
    f(expected).backward()
    measured = numerical_gradient(f, x, step=1e-5 if central else 1e-8, central=central)
    assert measured.shape == shape
    assert relative_error(measured, expected.grad) < (1e-8 if central else 1e-5)


def test_x_is_restored_bit_for_bit():
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


def test_the_error_of_gradients_that_are_almost_zero_is_not_relative():
    assert relative_error(point(0, 0), point(1e-5, 0)) == pytest.approx(0.1)
    assert relative_error(point(1), point(2)) == 0.5


def test_a_view_that_is_not_contiguous_is_measured_right():
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3).T
    assert relative_error(numerical_gradient(lambda x: (x**2).sum(), x), 2 * x) < 1e-8


def test_a_partial_derivative_holds_everything_else_still():
    assert numerical_gradient(lambda x: x[0] * x[1], point(3, 4)).tolist() == pytest.approx([4, 3])


def test_a_step_ten_times_smaller_makes_forward_ten_and_central_a_hundred_times_better():
    (forward, central), (forward_10, central_10) = errors_of_exp(1e-2), errors_of_exp(1e-3)
    assert forward / forward_10 == pytest.approx(10, rel=0.01)
    assert central / central_10 == pytest.approx(100, rel=0.01)


def test_with_a_step_too_small_rounding_errors_dominate():
    (forward_good, central_good), (forward, central) = errors_of_exp(1e-6), errors_of_exp(1e-12)
    assert forward > 10 * forward_good
    assert central > 1000 * central_good


def test_the_default_step_is_about_the_best_for_central_differences():
    errors = {step: errors_of_exp(step)[1] for step in (1e-2, 1e-5, 1e-9)}
    assert abs(numerical_gradient(torch.exp, point(1)).item() - math.e) == errors[1e-5]
    assert min(errors, key=errors.get) == 1e-5


def test_float32_is_refused_because_of_its_rounding_errors():
    with pytest.raises(ValueError, match=r"in torch.float32 is mostly rounding error: use x.double\(\)"):
        numerical_gradient(torch.sum, torch.zeros(3))


@pytest.mark.parametrize("step", [0.0, -1e-5, math.nan])
def test_a_step_that_is_not_positive_is_refused(step):
    with pytest.raises(ValueError, match="expected a small positive number such as 1e-5"):
        numerical_gradient(torch.sum, point(1), step)


def test_relative_error_is_0_for_equal_and_1_for_unrelated_gradients():
    assert relative_error(point(1, 2), point(1, 2)) == 0
    assert relative_error(point(2, 0), point(0, 0)) == 1
    assert relative_error(point(1, 200), point(1, 202)) == pytest.approx(2 / 202)


def test_relative_error_is_small_for_the_rounding_errors_of_a_zero_gradient():
    assert relative_error(point(0, 0), point(1e-13, -1e-12)) < 1e-6


def test_relative_error_is_never_small_where_there_is_a_nan():
    assert not relative_error(point(1, math.nan), point(1, 1)) < 1e-6


def test_gradients_of_different_shapes_are_not_compared():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(2, 1\): expected the same"):
        relative_error(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="expected the same, not empty"):
        relative_error(torch.zeros(0), torch.zeros(0))


def test_gradient_descent_finds_the_minimum_of_a_parabola():
    path = gradient_descent(bowl, point(-3, 4), lr=0.1, steps=100)
    heights = bowl(path.T)
    assert path.shape == (101, 2) and path[0].tolist() == [-3, 4]
    assert (heights[1:] < heights[:-1]).all()
    assert path[-1].abs().max() < 1e-8


def test_each_step_on_a_parabola_multiplies_the_distance_by_the_same_factor():
    path = gradient_descent(bowl, point(-3, 4), lr=0.1, steps=10)
    torch.testing.assert_close(path[1:], path[:-1] * 0.8, rtol=1e-8, atol=0)


def test_a_learning_rate_too_small_hardly_moves_and_one_too_large_diverges():
    start = point(-3, 4)
    small, good, large = (gradient_descent(bowl, start, lr, 50)[-1].norm().item() for lr in (1e-5, 0.3, 1.1))
    assert small > 0.99 * 5
    assert good < 1e-10
    assert large > 1000 * 5


def test_the_steepest_direction_limits_the_learning_rate():
    """The gradient 2y diverges above learning rate 1; x / 10 alone would allow 20."""
    path = gradient_descent(valley, point(-7, 2), lr=1.01, steps=200)
    assert path[-1, 1].abs() > 50
    assert path[-1, 0].abs() < 1e-6


def test_in_the_valley_minus_the_gradient_hardly_points_to_the_minimum():
    start = point(-7, 2)
    downhill, home = -numerical_gradient(valley, start), -start
    angle = torch.rad2deg(torch.acos(downhill @ home / (downhill.norm() * home.norm())))
    assert angle > 60


def test_gradient_descent_ends_in_the_minimum_on_its_side():
    left = gradient_descent(two_minima, point(-1.5, 1), 0.05, 300)[-1]
    right = gradient_descent(two_minima, point(1.5, 1), 0.05, 300)[-1]
    for end in (left, right):
        assert numerical_gradient(two_minima, end).abs().max() < 1e-6
    assert left[0] < -1 < 0.9 < right[0]
    assert two_minima(right) > two_minima(left) + 0.5


def test_gradient_descent_stops_at_a_saddle_unless_it_starts_beside_the_ridge():
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


def test_the_landscapes_take_a_whole_grid_of_points():
    grid = torch.rand(2, 5, 7, dtype=torch.float64)
    for landscape in (bowl, valley, saddle, two_minima):
        assert landscape(grid).shape == (5, 7)
        assert landscape(grid)[3, 4] == landscape(grid[:, 3, 4])
