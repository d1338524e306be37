"""Initializers: the standard deviation of each, and its effect on the outputs of many layers and on training."""

import math

import pytest
import torch

from kit.mechanism.activations import relu, sigmoid, tanh
from kit.mechanism.initializers import (
    activations_by_layer,
    fan_in,
    he,
    normal,
    text_histogram,
    train_two_layers,
    xavier,
    zeros,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("make", "std"),
    [
        (lambda: normal((300, 400), 1.0), 1.0),
        (lambda: normal((300, 400), 0.01), 0.01),
        (lambda: xavier((300, 400)), 1 / math.sqrt(400)),
        (lambda: he((300, 400)), math.sqrt(2 / 400)),
        (lambda: he((256, 8, 5, 5)), math.sqrt(2 / 200)),
    ],
)
def test_the_weights_have_the_spread_that_is_promised(make, std):
    weight = make()
    assert weight.std().item() == pytest.approx(std, rel=0.02)
    assert abs(weight.mean().item()) < 0.02 * std


def test_zeros_are_zeros_in_any_shape():
    assert zeros((2, 3)).tolist() == [[0] * 3] * 2


def test_he_for_a_linear_layer_is_torchs_kaiming():
    weight = torch.empty(300, 400)
    torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
    assert he((300, 400)).std().item() == pytest.approx(weight.std().item(), rel=0.02)


def test_xavier_of_a_square_layer_is_glorots():
    weight = torch.empty(300, 300)
    torch.nn.init.xavier_normal_(weight)
    assert xavier((300, 300)).std().item() == pytest.approx(weight.std().item(), rel=0.02)


def test_fan_in_counts_all_that_flows_into_one_unit():
    assert fan_in((10, 784)) == 784
    assert fan_in((16, 3, 5, 5)) == 75


@pytest.mark.parametrize("shape", [(), (10,), (0, 3), (3, 0)])
def test_a_shape_without_fan_in_is_refused(shape):
    with pytest.raises(ValueError, match=r"has no fan-in: expected \(outputs, inputs, ...\)"):
        he(shape)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan])
def test_a_spread_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match="expected a positive number"):
        normal((2, 2), std)


def outputs_of(initializer, activation, **settings):
    x = torch.randn(1000, 100)
    return activations_by_layer(x, initializer, activation, **settings)


def test_there_are_five_layers_unless_another_number_is_given():
    assert len(outputs_of(xavier, tanh)) == 5 and len(outputs_of(xavier, tanh, layers=2)) == 2


def test_normal_1_saturates_sigmoids_at_0_and_1_where_the_derivative_is_almost_0():
    last = outputs_of(lambda shape: normal(shape, 1.0), sigmoid)[-1]
    assert ((last < 0.1) | (last > 0.9)).double().mean() > 0.6
    assert (last * (1 - last)).median() < 0.05


def test_normal_001_gives_sigmoids_near_one_half_for_every_input():
    last = outputs_of(normal, sigmoid)[-1]
    assert last.std(dim=0).max() < 0.001
    assert (last - 0.5).abs().max() < 0.2


def test_xavier_keeps_sigmoids_spread_out_and_not_saturated():
    last = outputs_of(xavier, sigmoid)[-1]
    assert last.std() > 0.1
    assert ((last < 0.1) | (last > 0.9)).double().mean() < 0.05


def test_xavier_keeps_the_spread_of_tanh_through_ten_layers():
    spreads = [output.std().item() for output in outputs_of(xavier, tanh, layers=10)]
    small = outputs_of(normal, tanh, layers=10)[-1].std()
    assert spreads[-1] > 0.2
    assert small < 1e-8


def power(output):
    return output.square().mean().item()


def test_with_relu_he_keeps_the_power_of_the_signal_and_xavier_halves_it_in_every_layer():
    he_powers = [power(output) for output in outputs_of(he, relu, layers=10)]
    xavier_powers = [power(output) for output in outputs_of(xavier, relu, layers=10)]
    assert 0.3 < he_powers[-1] / he_powers[0] < 3
    assert xavier_powers[-1] / xavier_powers[0] == pytest.approx(0.5**9, rel=0.9)
    assert xavier_powers[-1] < 0.01 < he_powers[-1]


def hidden_after_training(initializer):
    """The hidden weights (4, 3) after 20 steps, learned from 12 samples."""
    x = torch.randn(12, 3, dtype=torch.float64)
    target = x[:, :1] * x[:, 1:2]
    hidden, output = initializer((4, 3)).double(), initializer((1, 4)).double()
    return train_two_layers(hidden, output, x, target, lr=1.0, steps=20)


def test_units_that_start_at_zero_change_but_stay_identical():
    hidden = hidden_after_training(zeros)
    assert hidden.abs().max() > 0
    assert all(torch.allclose(unit, hidden[0], rtol=0, atol=1e-9) for unit in hidden)


def test_training_takes_the_steps_of_gradient_descent_by_autograd():
    x, target = torch.randn(12, 3, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    start = [xavier(shape).double() for shape in ((4, 3), (1, 4))]
    trained = train_two_layers(*start, x, target, lr=0.5, steps=5)
    for _ in range(5):
        hidden, output = (weight.detach().requires_grad_() for weight in start)
        torch.nn.functional.mse_loss(sigmoid(x @ hidden.T) @ output.T, target).backward()
        start = [weight - 0.5 * weight.grad for weight in (hidden, output)]
    torch.testing.assert_close(trained, start[0].detach(), rtol=0, atol=1e-8)


def test_training_lowers_the_squared_error():
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    target, output = sigmoid(2 * x), torch.ones(1, 1, dtype=torch.float64)
    hidden = train_two_layers(torch.ones(1, 1, dtype=torch.float64), output, x, target, lr=1.0, steps=100)
    assert 1.3 < hidden.item() < 2.1


def test_units_that_start_at_random_become_different():
    hidden = hidden_after_training(xavier)
    assert torch.linalg.matrix_rank(hidden, rtol=1e-3) == 3


def test_training_does_not_change_the_weights_it_was_given():
    hidden, output, x = (torch.ones(shape, dtype=torch.float64) for shape in [(2, 2), (1, 2), (3, 2)])
    train_two_layers(hidden, output, x, torch.zeros(3, 1, dtype=torch.float64), lr=1.0, steps=1)
    assert torch.equal(hidden, torch.ones_like(hidden))


def test_a_histogram_in_text_is_highest_where_most_values_are():
    assert text_histogram(torch.tensor([0.1, 0.1, 0.1, 0.1, 0.6]), 0, 1, bins=2) == "█▂"
    assert text_histogram(torch.tensor([0.1] * 80 + [0.6]), 0, 1, bins=2) == "█▁"
    assert text_histogram(torch.zeros(0), 0, 1, bins=3) == "   "
    assert len(text_histogram(torch.ones(1), 0, 1)) == 20
