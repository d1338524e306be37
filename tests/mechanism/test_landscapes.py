"""Landscapes: their gradients are correct, and gradient descent behaves as each description says."""

import pytest
import torch

from kit.mechanism.gradient import gradient_descent, numerical_gradient, relative_error
from kit.mechanism.landscapes import (
    LANDSCAPES,
    LENGTH,
    WIDTH,
    classify_point,
    curvatures,
    grid,
    max_stable_lr,
    network_loss,
)
from kit.mechanism.optimizers import SGD

ALL = pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
PARABOLA, VALLEY, SADDLE, TWO, NETWORK = LANDSCAPES.values()


def at(*point: float) -> torch.Tensor:
    return torch.tensor(point, dtype=torch.float64)


def places(landscape) -> list[torch.Tensor]:
    """Its start, and points all over its map."""
    return [at(*landscape.start), *grid(landscape.bounds, 6).flatten(1).T]


def descent(landscape, start, rate, steps=200) -> torch.Tensor:
    return gradient_descent(landscape.function, at(*start), rate, steps, landscape.gradient)[-1]


@ALL
def test_the_gradient_by_hand_is_the_numerical_one_and_autograds(landscape):
    for place in places(landscape):
        by_hand = landscape.gradient(place)
        leaf = place.clone().requires_grad_()
        landscape.function(leaf).backward()
        assert relative_error(by_hand, numerical_gradient(landscape.function, place.clone())) < 1e-6
        assert relative_error(by_hand, leaf.grad) < 1e-10


@ALL
def test_the_curvatures_are_the_eigenvalues_of_autograds_hessian(landscape):
    for place in places(landscape):
        hessian = torch.autograd.functional.hessian(landscape.function, place)
        assert torch.allclose(curvatures(landscape, place), torch.linalg.eigvalsh(hessian), atol=1e-5)


def test_the_curvature_of_a_parabola_has_a_rounding_error_only():
    assert curvatures(PARABOLA, at(1, 2)).tolist() == pytest.approx([2, 2], abs=1e-10)


@ALL
def test_a_grid_is_computed_at_once_as_point_by_point(landscape):
    points = grid(landscape.bounds, 7)
    heights = landscape.function(points)
    assert heights.shape == (7, 7)
    assert heights[2, 5] == pytest.approx(landscape.function(points[:, 2, 5]).item(), rel=1e-12)


def test_a_grid_runs_from_left_to_right_and_from_bottom_to_top():
    points = grid((-2.0, 4.0, -1.0, 1.0), 3)
    assert points[0, 0].tolist() == [-2, 1, 4]
    assert points[1, :, 0].tolist() == [-1, 0, 1]


@ALL
def test_a_landscape_whose_curvature_is_said_to_be_the_same_everywhere_has_it_everywhere(landscape):
    steepest = [curvatures(landscape, place)[1].item() for place in places(landscape)]
    if landscape.curvature:
        assert steepest == pytest.approx([landscape.curvature] * len(steepest))
    else:
        assert landscape is SADDLE or max(steepest) - min(steepest) > 1e-2


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)])
def test_sgd_converges_just_below_the_limit_and_diverges_just_above(momentum, nesterov):
    bound = max_stable_lr(2.0, momentum, nesterov)
    for rate, converges in [(0.98 * bound, True), (1.02 * bound, False)]:
        point = at(*VALLEY.start)
        walker = SGD([point], rate, momentum, nesterov)
        for _ in range(1000):
            point.grad = VALLEY.gradient(point)
            walker.step()
        assert (point.norm() < 0.1) == converges


def test_on_the_stretched_valley_plain_sgd_may_go_up_to_rate_1():
    assert max_stable_lr(VALLEY.curvature) == 1.0
    assert descent(VALLEY, VALLEY.start, 0.99).norm() < 0.1
    assert descent(VALLEY, VALLEY.start, 1.01)[1].abs() > 10


def test_a_curvature_of_zero_has_no_limit():
    with pytest.raises(ValueError, match=r"curvature is 0\.0: expected a positive number"):
        max_stable_lr(0.0)


def test_the_saddle_has_gradient_zero_and_curvatures_of_both_signs():
    assert SADDLE.gradient(at(0, 0)).norm() == 0
    low, high = curvatures(SADDLE, at(0, 0)).tolist()
    assert low < 0 < high
    assert classify_point(SADDLE, at(0, 0)) == "saddle"


def test_descent_stops_at_the_saddle_from_its_ridge_and_leaves_it_from_beside():
    assert descent(SADDLE, (-1.8, 0.0), 0.05).norm() < 1e-6
    assert descent(SADDLE, (-1.8, 1e-6), 0.05)[1] > 10


def test_descent_finds_the_minimum_on_its_side_and_the_left_is_lower():
    left, right = descent(TWO, (-1.6, 1.2), 0.05), descent(TWO, (1.6, 1.2), 0.05)
    assert left[0] < -0.9 and right[0] > 0.9
    assert classify_point(TWO, left) == classify_point(TWO, right) == "minimum"
    assert TWO.function(left) < TWO.function(right)


def test_the_loss_of_the_tiny_network_is_torchs():
    hidden, output = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    network = torch.nn.Sequential(hidden, torch.nn.Tanh(), output).double()
    loss = torch.nn.functional.mse_loss(network(LENGTH[:, None]), WIDTH[:, None])
    weights = at(hidden.weight.item(), output.weight.item())
    assert network_loss(weights).item() == pytest.approx(loss.item(), rel=1e-12)


def test_the_petals_are_those_of_the_iris_data_in_sklearn():
    petals = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_iris().data[:, 2:]
    rows = torch.from_numpy(petals)[[*range(50, 57), *range(100, 107)]]
    assert torch.allclose(rows, torch.stack([LENGTH + 4.9, WIDTH + 1.7], dim=1))


def test_the_tiny_network_is_better_than_the_mean_and_reversed_signs_are_the_same_network():
    end = descent(NETWORK, NETWORK.start, 1.0, 1000)
    assert classify_point(NETWORK, end) == "minimum"
    assert network_loss(end) < 0.25 * (WIDTH**2).mean()
    assert network_loss(end).item() == pytest.approx(network_loss(-end).item())


def test_weights_of_zero_are_a_saddle_of_the_tiny_network():
    assert NETWORK.gradient(at(0, 0)).norm() == 0
    assert classify_point(NETWORK, at(0, 0)) == "saddle"


def test_where_tanh_saturates_the_tiny_network_has_no_minimum():
    assert classify_point(NETWORK, at(-30.0, 0.0)) != "minimum"


def test_a_point_with_a_gradient_is_a_slope():
    assert classify_point(PARABOLA, at(1, 1)) == "slope"
