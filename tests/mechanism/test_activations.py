"""Activations: each compared with torch's, softmax for large scores, and linear layers that collapse into one."""

import pytest
import torch

from kit.mechanism.activations import collapse, identity, log_softmax, naive_softmax, relu, sigmoid, softmax, step, tanh

X = torch.arange(-300, 301, dtype=torch.float64) / 10


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (sigmoid, torch.sigmoid),
        (tanh, torch.tanh),
        (relu, torch.relu),
        (identity, lambda x: x),
        (step, lambda x: torch.heaviside(x, torch.zeros(1, dtype=x.dtype))),
        (softmax, lambda x: torch.softmax(x, -1)),
        (log_softmax, lambda x: torch.log_softmax(x, -1)),
    ],
)
def test_every_activation_is_torchs(ours, torchs):
    torch.testing.assert_close(ours(X), torchs(X), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("dim", [{}, {"dim": 0}, {"dim": -1}], ids=str)
def test_softmax_gives_probabilities_along_any_axis(shape, dim):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    axis = dim.get("dim", -1)
    for function in (softmax, naive_softmax):
        torch.testing.assert_close(function(x, **dim), torch.softmax(x, axis), rtol=1e-13, atol=0)
    torch.testing.assert_close(log_softmax(x, **dim), torch.log_softmax(x, axis), rtol=1e-13, atol=1e-15)
    assert torch.allclose(softmax(x, **dim).sum(axis), torch.ones((), dtype=x.dtype))


def test_naive_softmax_overflows_and_softmax_does_not():
    assert naive_softmax(torch.tensor([88.0, 0.0])).isfinite().all()
    assert naive_softmax(torch.tensor([89.0, 0.0]))[0].isnan()
    assert softmax(torch.tensor([1000.0, 0.0])).tolist() == [1.0, 0.0]


def test_subtracting_the_largest_score_does_not_change_the_result():
    x = torch.tensor([0.3, 2.9, 4.0], dtype=torch.float64)
    torch.testing.assert_close(softmax(x), naive_softmax(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(softmax(x), softmax(x + 100), rtol=1e-13, atol=0)


def test_softmax_does_not_change_the_order_so_prediction_can_leave_it_out():
    scores = torch.randn(1000, 10, generator=torch.Generator().manual_seed(2))
    assert torch.equal(softmax(scores).argsort(dim=1), scores.argsort(dim=1))


def test_log_softmax_stays_finite_where_the_logarithm_of_softmax_does_not():
    scores = torch.tensor([0.0, 200.0])
    assert softmax(scores).log()[0] == -torch.inf
    assert log_softmax(scores).tolist() == [-200.0, 0.0]


def test_sigmoid_of_large_numbers_is_0_and_1_in_float32():
    assert sigmoid(torch.tensor([-1000.0, 1000.0])).tolist() == [0.0, 1.0]


def test_tanh_is_a_stretched_sigmoid():
    torch.testing.assert_close(tanh(X), 2 * sigmoid(2 * X) - 1, rtol=1e-12, atol=1e-15)


def test_the_derivative_of_step_is_zero_except_at_the_step():
    x = X[X.abs() > 1e-3]
    assert torch.equal(step(x + 1e-6), step(x - 1e-6))


def random_layers():
    dice = torch.Generator().manual_seed(3)
    sizes = [(4, 16), (16, 16), (16, 3)]
    return [
        (
            torch.randn(outputs, inputs, generator=dice, dtype=torch.float64),
            torch.randn(outputs, generator=dice, dtype=torch.float64),
        )
        for inputs, outputs in sizes
    ]


def through(layers, x, activation):
    """The layers one after the other, with the activation between them but not after the last."""
    for weight, bias in layers[:-1]:
        x = activation(x @ weight.T + bias)
    weight, bias = layers[-1]
    return x @ weight.T + bias


def test_a_stack_of_linear_layers_is_one_linear_layer():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    weight, bias = collapse(random_layers())
    assert weight.shape == (3, 4)
    torch.testing.assert_close(through(random_layers(), x, identity), x @ weight.T + bias)


@pytest.mark.parametrize("activation", [step, sigmoid, tanh, relu])
def test_with_a_nonlinear_activation_no_single_layer_is_equal(activation):
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    wanted = through(random_layers(), x, activation)
    with_bias = torch.cat([x, torch.ones(200, 1, dtype=x.dtype)], dim=1)
    best = torch.linalg.lstsq(with_bias, wanted).solution
    unexplained = (with_bias @ best - wanted).square().mean() / wanted.var()
    assert unexplained > 0.01


def test_layers_that_do_not_fit_are_refused_with_both_shapes():
    layers = [(torch.zeros(5, 4), torch.zeros(5)), (torch.zeros(2, 6), torch.zeros(2))]
    with pytest.raises(ValueError, match=r"shape \(2, 6\) does not fit on one of shape \(5, 4\): expected 5 inputs"):
        collapse(layers)
    with pytest.raises(ValueError, match="no layers to collapse"):
        collapse([])
