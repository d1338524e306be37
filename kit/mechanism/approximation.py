"""Universal approximation: one hidden layer, wide enough, comes as near to any continuous curve as one likes.

Cybenko (1989) proved it for sigmoids and Hornik (1991) for nearly any activation that is not a straight line. Here it
is built rather than proved: with steps and with bends put where they belong by hand, with random bends whose heights
are solved for, and with bends that are learned. Only the last one is a guess: the theorem says that good weights are
there, not that descent finds them.

    python -m kit.mechanism.approximation
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kit.mechanism.layers import Layer, Linear, MeanSquaredError, ReLU, Sequential, Sigmoid
from kit.mechanism.optimizers import Adam

Curve = Callable[[Tensor], Tensor]


def wave(x: Tensor) -> Tensor:
    """The curve of the examples, on [0, 1]: two waves of different length, sin(2 pi x) + 0.5 sin(6 pi x)."""
    return (2 * math.pi * x).sin() + 0.5 * (6 * math.pi * x).sin()


def hidden_layer(
    weight: Tensor, bias: Tensor, activation: Layer, out: Tensor, shift: float | Tensor = 0.0
) -> Sequential:
    """Linear(1, width), activation, Linear(width, 1) with these weights.

    weight, bias, out: (width,), one number a hidden unit. The network computes
    sum_i out_i activation(weight_i x + bias_i) + shift.
    """
    width = len(weight)
    first, last = Linear(1, width), Linear(width, 1)
    first.weight, first.bias = weight.reshape(width, 1), bias
    last.weight, last.bias = out.reshape(1, width), torch.as_tensor(shift, dtype=weight.dtype).reshape(1)
    return Sequential(first, activation, last)


def by_steps(curve: Curve, width: int) -> Sequential:
    """A staircase: unit i is a sharp sigmoid that switches on at its place and lifts the line by what the curve rose.

    f(x) ~ f(0) + sum_i (f(i / width) - f((i - 1) / width)) sigmoid(k (x - (i - 1/2) / width)), the form of Cybenko's
    theorem, with k so large that each sigmoid is a step. A stair is 1 / width wide, so that the error is at most half a
    stair times the steepest slope of f, and falls like 1 / width.
    """
    ends = knots(width)
    rise = curve(ends).diff()
    middle, sharpness = (ends[1:] + ends[:-1]) / 2, 1000.0 * width
    return hidden_layer(torch.full_like(middle, sharpness), -sharpness * middle, Sigmoid(), rise, curve(ends[:1]))


def by_bends(curve: Curve, width: int) -> Sequential:
    """A chain of straight pieces through f(i / width): relu i bends the line at i / width by the change of slope.

    On a smooth curve the error is at most max|f''| / (8 width^2): twice the width, a quarter of the error.
    """
    ends = knots(width)
    slopes = curve(ends).diff() * width
    bends = torch.cat([slopes[:1], slopes.diff()])
    return hidden_layer(torch.ones_like(bends), -ends[:-1], ReLU(), bends, curve(ends[:1]))


def by_chance(curve: Curve, width: int, generator: torch.Generator | None = None) -> Sequential:
    """relu units that bend at random places; only the output layer is found, by least squares on 1000 points.

    The hidden layer is never trained: that something wide and random will do shows how much width alone is worth. Where
    two bends are too close for the points to tell them apart, `rcond` keeps their heights small.
    """
    knots(width)
    places = torch.rand(width, generator=generator, dtype=torch.float64)
    side = torch.where(torch.arange(width) % 2 == 0, 1.0, -1.0).double()
    network = hidden_layer(side, -side * places, ReLU(), torch.zeros(width, dtype=torch.float64))
    x = grid()
    units = network.layers[1](network.layers[0](x))
    solution = torch.linalg.lstsq(
        torch.cat([units, torch.ones_like(x)], 1), curve(x), rcond=1e-6, driver="gelsd"
    ).solution
    network.layers[2].weight, network.layers[2].bias = solution[:-1].T, solution[-1]
    return network


def by_descent(curve: Curve, width: int, steps: int = 1000, generator: torch.Generator | None = None) -> Sequential:
    """relu units that bend at random places to begin with, and all weights trained: Adam on the mean squared error.

    The rate falls to zero along half a cosine. Descent may settle where a whole bump of the curve has no bend left to
    follow it (a local minimum): that happens to narrow layers mostly, and is why they do worse than bends set by hand.
    """
    network = by_chance(torch.zeros_like, width, generator)
    network.layers[0].weight *= 4
    network.layers[0].bias *= 4
    network.layers[2].weight = torch.randn(1, width, generator=generator, dtype=torch.float64) / math.sqrt(width)
    x, loss = grid(200), MeanSquaredError()
    target, optimizer = curve(x), Adam(network.parameters(), lr=0.03)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.015 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss(network(x), target)
        network.backward(loss.backward())
        optimizer.step()
    return network


def by_lines(curve: Curve, width: int) -> Sequential:
    """No activation in between, the best that least squares finds: whatever the width, a single straight line."""
    x = grid()
    line = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), curve(x)).solution
    ones = torch.ones(width, dtype=torch.float64)
    return hidden_layer(ones, 0 * ones, Sequential(), line[0] * ones / width, line[1])


def knots(width: int) -> Tensor:
    """0, 1 / width, ..., 1: (width + 1,), float64."""
    if width < 1:
        raise ValueError(f"width {width}: a hidden layer has at least 1 unit")
    return torch.linspace(0, 1, width + 1, dtype=torch.float64)


def grid(points: int = 1000) -> Tensor:
    """Evenly spread inputs on [0, 1]: (points, 1), float64."""
    return torch.linspace(0, 1, points, dtype=torch.float64)[:, None]


def largest_error(network: Sequential, curve: Curve) -> float:
    """max |network(x) - f(x)| over 10 007 points of [0, 1], most of them new to it: the theorem's distance."""
    x = grid(10_007)
    return float((network(x) - curve(x)).abs().max())


def error_by_width(build: Callable[[Curve, int], Sequential], curve: Curve, widths: Sequence[int]) -> dict[int, float]:
    """The largest error of the network that `build(curve, width)` makes, for each width."""
    return {width: largest_error(build(curve, width), curve) for width in widths}


def order(errors: dict[int, float]) -> float:
    """p of error ~ width^-p: minus the slope of the straight line through (log width, log error)."""
    if len(errors) < 2 or min(errors.values()) <= 0:
        raise ValueError(f"errors {errors}: expected those of at least two widths, all above 0")
    x, y = (torch.tensor([*values], dtype=torch.float64).log() for values in (errors, errors.values()))
    x, y = x - x.mean(), y - y.mean()
    return -float((x * y).sum() / (x * x).sum())


def main() -> None:
    """The largest error against the width, for every way to find the weights."""
    widths = [4, 8, 16, 32, 64, 128]
    print("largest error, width ", *(f"{width:>9}" for width in widths), "  falls like")
    dice = torch.Generator().manual_seed(0)
    for name, build in {
        "straight lines": by_lines,
        "steps by hand": by_steps,
        "bends by hand": by_bends,
        "bends by chance": lambda curve, width: by_chance(curve, width, dice),
        "bends by descent": lambda curve, width: by_descent(curve, width, generator=dice),
    }.items():
        errors = error_by_width(build, wave, widths)
        print(f"{name:20} ", *(f"{error:9.5f}" for error in errors.values()), f"  width^-{order(errors):.2f}")


if __name__ == "__main__":
    main()
