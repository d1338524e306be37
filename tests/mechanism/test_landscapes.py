"""Landscapes: their gradients are right, and each does to descent what its story says."""

from dataclasses import replace

import pytest
import torch

from kit.mechanism.gradient import gradient_descent, numerical_gradient, relative_error
from kit.mechanism.landscapes import (
    LANDSCAPES,
    LENGTH,
    WIDTH,
    curvatures,
    grid,
    kind_of_place,
    largest_rate,
    network_loss,
    square,
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
def test_sgd_settles_just_below_the_largest_rate_and_diverges_just_above(momentum, nesterov):
    bound = largest_rate(2.0, momentum, nesterov)
    for rate, settles in [(0.98 * bound, True), (1.02 * bound, False)]:
        point = at(*VALLEY.start)
        walker = SGD([point], rate, momentum, nesterov)
        for _ in range(1000):
            point.grad = VALLEY.gradient(point)
            walker.step()
        assert (point.norm() < 0.1) == settles


def test_on_the_stretched_valley_plain_sgd_may_go_up_to_rate_1():
    assert largest_rate(VALLEY.curvature) == 1.0
    assert descent(VALLEY, VALLEY.start, 0.99).norm() < 0.1
    assert descent(VALLEY, VALLEY.start, 1.01)[1].abs() > 10


def test_a_curvature_of_zero_has_no_largest_rate():
    with pytest.raises(ValueError, match=r"curvature is 0\.0: expected above 0"):
        largest_rate(0.0)


def test_the_saddle_is_flat_in_the_middle_yet_bends_both_ways():
    assert SADDLE.gradient(at(0, 0)).norm() == 0
    low, high = curvatures(SADDLE, at(0, 0)).tolist()
    assert low < 0 < high
    assert kind_of_place(SADDLE, at(0, 0)) == "saddle"


def test_from_the_saddles_ridge_descent_stops_there_and_beside_it_runs_away():
    assert descent(SADDLE, (-1.8, 0.0), 0.05).norm() < 1e-6
    assert descent(SADDLE, (-1.8, 1e-6), 0.05)[1] > 10


def test_of_two_minima_descent_finds_the_one_on_its_side_and_the_left_is_lower():
    left, right = descent(TWO, (-1.6, 1.2), 0.05), descent(TWO, (1.6, 1.2), 0.05)
    assert left[0] < -0.9 and right[0] > 0.9
    assert kind_of_place(TWO, left) == kind_of_place(TWO, right) == "minimum"
    assert TWO.function(left) < TWO.function(right)


def test_the_tiny_network_is_a_network_and_its_loss_torchs():
    hidden, output = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    network = torch.nn.Sequential(hidden, torch.nn.Tanh(), output).double()
    loss = torch.nn.functional.mse_loss(network(LENGTH[:, None]), WIDTH[:, None])
    weights = at(hidden.weight.item(), output.weight.item())
    assert network_loss(weights).item() == pytest.approx(loss.item(), rel=1e-12)


def test_the_tiny_network_learned_real_petals_that_sklearn_has_too():
    petals = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_iris().data[:, 2:]
    rows = torch.from_numpy(petals)[[*range(50, 57), *range(100, 107)]]
    assert torch.allclose(rows, torch.stack([LENGTH + 4.9, WIDTH + 1.7], dim=1))


def test_the_tiny_network_ends_better_than_guessing_the_middle_and_turned_signs_are_the_same_network():
    end = descent(NETWORK, NETWORK.start, 1.0, 1000)
    assert kind_of_place(NETWORK, end) == "minimum"
    assert network_loss(end) < 0.25 * (WIDTH**2).mean()
    assert network_loss(end).item() == pytest.approx(network_loss(-end).item())


def test_between_the_networks_minima_lies_a_saddle_where_weights_of_zero_stay():
    assert NETWORK.gradient(at(0, 0)).norm() == 0
    assert kind_of_place(NETWORK, at(0, 0)) == "saddle"


def test_far_out_where_tanh_is_flat_the_network_stands_on_a_plateau_or_a_slope_but_at_no_minimum():
    assert kind_of_place(NETWORK, at(-30.0, 0.0)) != "minimum"


def test_a_place_with_a_slope_is_called_one():
    assert kind_of_place(PARABOLA, at(1, 1)) == "slope"


def test_a_start_off_the_map_is_refused():
    with pytest.raises(ValueError, match=r"parabola: start \(9, 0\) is off the map \(-5\.0, .*; move it inside"):
        replace(PARABOLA, start=(9, 0))
    assert square(2.0) == (-2.0, 2.0, -2.0, 2.0)
