"""Universal approximation: a network with one hidden layer approximates any continuous function, if it is wide enough.

Cybenko (Approximation by superpositions of a sigmoidal function, 1989) proved it for sigmoids, Hornik (1991) for nearly
any activation that is not linear. Here the weights are computed directly, for sigmoids and for relu, and then learned
by gradient descent. The theorem says that such weights exist, not that gradient descent finds them.
Run `python -m kit.mechanism.approximation` to see the error fall with the width.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kit.mechanism.layers import Layer, Linear, MeanSquaredError, ReLU, Sequential, Sigmoid
from kit.mechanism.optimizers import Adam

Curve = Callable[[Tensor], Tensor]


def wave(x: Tensor) -> Tensor:
    """The example function on [0, 1]: sin(2 pi x) + 0.5 sin(6 pi x)."""
    return (2 * math.pi * x).sin() + 0.5 * (6 * math.pi * x).sin()


def hidden_layer(weight: Tensor, bias: Tensor, activation: Layer, out: Tensor, out_bias: Tensor) -> Sequential:
    """Return the network sum_i out_i activation(weight_i x + bias_i) + out_bias: (n, 1) -> (n, 1).

    weight, bias, out: (width,), one number for each hidden unit; out_bias: (1,).
    """
    width = len(weight)
    first, last = Linear(1, width), Linear(width, 1)
    first.weight, first.bias = weight.reshape(width, 1), bias
    last.weight, last.bias = out.reshape(1, width), out_bias
    return Sequential(first, activation, last)


def knots(width: int) -> Tensor:
    """Return 0, 1 / width, ..., 1: (width + 1,), float64."""
    if width < 1:
        raise ValueError(f"width {width}: a hidden layer has at least 1 unit")
    return torch.linspace(0, 1, width + 1, dtype=torch.float64)


def step_network(curve: Curve, width: int) -> Sequential:
    """Approximate a function by steps: unit i is a steep sigmoid whose height is the increase of the function there.

    f(x) ~ f(0) + sum_i (f(i / width) - f((i - 1) / width)) sigmoid(k (x - (i - 1/2) / width)) with a large k, the form
    of Cybenko's theorem. The error is at most max|f'| / (2 width).
    """
    x = knots(width)
    middle, k = (x[1:] + x[:-1]) / 2, 1000.0 * width
    return hidden_layer(torch.full_like(middle, k), -k * middle, Sigmoid(), curve(x).diff(), curve(x[:1]))


def piecewise_linear_network(curve: Curve, width: int) -> Sequential:
    """Approximate a function by lines through f(i / width): relu i changes the slope at i / width.

    For a smooth function the error is at most max|f''| / (8 width^2): twice the width, a quarter of the error.
    """
    x = knots(width)
    slopes = curve(x).diff() * width
    changes = torch.cat([slopes[:1], slopes.diff()])
    return hidden_layer(torch.ones_like(changes), -x[:-1], ReLU(), changes, curve(x[:1]))


def trained_network(curve: Curve, width: int, steps: int = 1000) -> Sequential:
    """Approximate a function by relu units with random knots, trained by Adam on the mean squared error.

    The learning rate decreases along half a cosine. Narrow networks may end in a local minimum, where no unit is left
    to follow a part of the function, so they are worse than networks with computed weights.
    """
    places = knots(width)[:-1].clone().uniform_()
    sign = torch.where(torch.arange(width) % 2 == 0, 4.0, -4.0).double()
    out = torch.randn(width, dtype=torch.float64) / math.sqrt(width)
    network = hidden_layer(sign, -sign * places, ReLU(), out, torch.zeros(1, dtype=torch.float64))
    x, loss = knots(199)[:, None], MeanSquaredError()
    target, optimizer = curve(x), Adam(network.parameters(), lr=0.03)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.015 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss(network(x), target)
        network.backward(loss.backward())
        optimizer.step()
    return network


def largest_error(network: Sequential, curve: Curve) -> float:
    """Return max |network(x) - f(x)| over 10 007 points of [0, 1]."""
    x = knots(10_006)[:, None]
    return float((network(x) - curve(x)).abs().max())


def error_by_width(build: Callable[[Curve, int], Sequential], curve: Curve, widths: Sequence[int]) -> dict[int, float]:
    """Return the largest error of the network that `build(curve, width)` returns, for each width."""
    return {width: largest_error(build(curve, width), curve) for width in widths}


def main() -> None:
    """Print the largest error for each width and method."""
    widths = [4, 8, 16, 32, 64, 128]
    print("largest error, width       ", *(f"{width:>9}" for width in widths))
    torch.manual_seed(0)
    for build in (step_network, piecewise_linear_network, trained_network):
        errors = error_by_width(build, wave, widths)
        print(f"{build.__name__:27}", *(f"{error:9.5f}" for error in errors.values()))


if __name__ == "__main__":
    main()
