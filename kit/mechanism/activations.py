"""Activations: functions between layers (step, sigmoid, tanh, relu) and after the last layer (identity, softmax).

The activation between layers must not be linear: without one, a stack of linear layers is equal to a single linear
layer, which `collapse` computes. Run `python -m kit.mechanism.activations` to see the values.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def step(x: Tensor) -> Tensor:
    """Return 1 where x > 0, else 0; any shape. The derivative is 0, so gradient descent cannot train through it."""
    return (x > 0).to(x.dtype)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), between 0 and 1; any shape. A smooth step; the output for binary classification.

    Where exp(-x) overflows to infinity, the result is 1 / infinity = 0, which is correct.
    """
    return 1 / (1 + (-x).exp())


def tanh(x: Tensor) -> Tensor:
    """Return (exp(x) - exp(-x)) / (exp(x) + exp(-x)) = 2 sigmoid(2x) - 1, between -1 and 1; any shape.

    Calls torch, because the first formula gives infinity / infinity = NaN for large x.
    """
    return x.tanh()


def relu(x: Tensor) -> Tensor:
    """Return max(0, x); any shape. Source: V. Nair and G. Hinton, Rectified linear units improve RBMs, ICML 2010."""
    return x.relu()


def identity(x: Tensor) -> Tensor:
    """Return x unchanged: the output activation for regression, where the prediction may be any number."""
    return x


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `dim`: scores of any shape become probabilities that sum to 1.

    The largest score is subtracted first. This multiplies numerator and denominator by exp(-max), so the result is the
    same, but the largest exponent is 0 and nothing overflows. Softmax keeps the order of the scores, so the predicted
    class can be read from the scores; softmax itself is needed for the loss and for probabilities.
    Source: J. Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990.
    """
    powers = (x - x.amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)


def naive_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Return softmax without subtracting the maximum. Wrong for large x: in float32, exp(89) is already infinity."""
    return x.exp() / x.exp().sum(dim, keepdim=True)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Return log(softmax(x)) = x - max - log(sum(exp(x - max))): finite even where the probability rounds to 0."""
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def collapse(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the single layer (weight, bias) that is equal to a stack of layers without activations.

    Each layer computes x @ weight.T + bias, with weight (outputs, inputs) and bias (outputs,):
    W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2).
    Raises `ValueError` for no layers, or where the inputs of a layer are not the outputs of the one before.
    """
    if not layers:
        raise ValueError("no layers to collapse: give at least one (weight, bias)")
    weight, bias = layers[0]
    for next_weight, next_bias in layers[1:]:
        if next_weight.shape[1] != weight.shape[0]:
            raise ValueError(
                f"a layer of shape {tuple(next_weight.shape)} does not fit on one of shape {tuple(weight.shape)}: "
                f"expected {weight.shape[0]} inputs, got {next_weight.shape[1]}"
            )
        weight, bias = next_weight @ weight, next_weight @ bias + next_bias
    return weight, bias


def main() -> None:
    """Print values of every activation, softmax with and without overflow, and a stack that collapses."""
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    print(f"{'x':8}", *(f"{value:6.2f}" for value in x))
    for function in (step, sigmoid, tanh, relu, identity, softmax):
        print(f"{function.__name__:8}", *(f"{value:6.2f}" for value in function(x)))
    large = torch.tensor([1000.0, 1001.0, 1002.0])
    print("scores of about 1000, naive softmax:    ", naive_softmax(large).tolist())
    print("the same with the maximum subtracted:   ", [round(p, 4) for p in softmax(large).tolist()])
    sizes = [(4, 8), (8, 8), (8, 2)]
    layers = [(torch.randn(outputs, inputs), torch.randn(outputs)) for inputs, outputs in sizes]
    print("three layers without activations equal one layer of shape", tuple(collapse(layers)[0].shape))


if __name__ == "__main__":
    main()
