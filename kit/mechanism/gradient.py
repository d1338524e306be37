"""Gradient: which way is uphill, measured by trying; and gradient descent, which walks the other way.

A numerical gradient needs no mathematics and two evaluations per number, so it is too slow to train with, and the right
judge of every gradient that is computed faster. `python -m kit.mechanism.gradient` shows its error as the step shrinks,
and what a learning rate too small or too large does.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor | float]


def numerical_gradient(f: Function, x: Tensor, step: float = 1e-5, central: bool = True) -> Tensor:
    """The partial derivatives of `f` at `x`: a tensor of x's shape, whatever that is. All else is held still for each.

    forward: (f(x + step) - f(x)) / step, whose error shrinks as step.
    central: (f(x + step) - f(x - step)) / (2 step), whose error shrinks as step^2.
    Both are chords, not tangents; and a step too small drowns in rounding. Near 1e-5 central does best in float64.
    `x` is changed in place and put back, so `f` may ignore its argument and read a layer that holds the same tensor.
    """
    check_step(x, step)
    x = x.detach()
    gradient = torch.zeros_like(x)
    start = None if central else number(f(x))
    for place in product(*(range(size) for size in x.shape)):
        value = x[place].item()
        x[place] = value + step
        above = number(f(x))
        x[place] = value - step
        below = number(f(x)) if central else start
        x[place] = value
        gradient[place] = (above - below) / (2 * step if central else step)
    return gradient


def number(value: Tensor | float) -> float:
    """What a function gave, as a Python number: a tensor of one element, or a number already."""
    return value.item() if isinstance(value, Tensor) else float(value)


def check_step(x: Tensor, step: float) -> None:
    """Raise `ValueError` unless x is float64 and the step positive: in float32 rounding eats the difference."""
    if x.dtype != torch.float64:
        raise ValueError(f"a numerical gradient of {x.dtype} is mostly rounding: expected torch.float64; use .double()")
    if not step > 0:
        raise ValueError(f"step is {step}: expected a small positive number such as 1e-5")


def relative_error(a: Tensor, b: Tensor, floor: float = 1e-4) -> float:
    """How far two gradients of the same shape are apart: max |a - b| / max(|a|, |b|, floor), over all elements.

    0 means equal, 1 means that one of them is beside the point; a right float64 gradient stays under 1e-6 against
    the numerical one. Gradients all below `floor` are compared with the floor, for what is left of them is rounding.
    """
    if a.shape != b.shape:
        raise ValueError(f"gradients of shapes {tuple(a.shape)} and {tuple(b.shape)}: expected the same")
    if a.numel() == 0:
        raise ValueError(f"gradients of shape {tuple(a.shape)} are empty: expected at least one number")
    size = torch.stack([a.abs().max(), b.abs().max()]).max().clamp(min=floor)
    return ((a - b).abs().max() / size).item()


def gradient_descent(
    f: Function, start: Tensor, lr: float, steps: int, gradient: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Walk downhill: x = x - lr * gradient(x), `steps` times. The path (steps + 1, *start.shape), `start` first.

    `gradient` may be given as a function of x; else it is measured. A rate too large gives a path that runs away:
    it is returned as it is, to be looked at. Source: A. Cauchy, Methode generale pour la resolution des systemes
    d'equations simultanees, 1847.
    """
    if not lr > 0:
        raise ValueError(f"learning rate is {lr}: expected a positive number such as 0.1")
    if steps < 0:
        raise ValueError(f"steps is {steps}: expected 0 or more")
    x = start.detach().clone()
    path = [x]
    for _ in range(steps):
        x = x - lr * (gradient(x) if gradient else numerical_gradient(f, x))
        path.append(x)
    return torch.stack(path)


def bowl(point: Tensor) -> Tensor:
    """x^2 + y^2: downhill is straight towards the minimum at (0, 0). point: (2, ...), one place or a grid of them."""
    return point[0] ** 2 + point[1] ** 2


def valley(point: Tensor) -> Tensor:
    """x^2 / 20 + y^2: steep across, gentle along, and downhill hardly points to the minimum at (0, 0)."""
    return point[0] ** 2 / 20 + point[1] ** 2


def saddle(point: Tensor) -> Tensor:
    """x^2 - y^2: flat at (0, 0), a minimum along x and a maximum along y; on the ridge y = 0 descent stops there."""
    return point[0] ** 2 - point[1] ** 2


def two_minima(point: Tensor) -> Tensor:
    """(x^2 - 1)^2 + 0.3 x + y^2: the lowest point is near (-1.04, 0), a merely local minimum near (0.96, 0)."""
    return (point[0] ** 2 - 1) ** 2 + 0.3 * point[0] + point[1] ** 2


def difference_errors(f: Function, derivative: float, x: float, steps: list[float]) -> list[tuple[float, float, float]]:
    """(step, error forward, error central) for each step, at one point x where the true derivative is known."""
    point = torch.tensor(x, dtype=torch.float64)

    def error(step: float, central: bool) -> float:
        return abs(numerical_gradient(f, point, step, central).item() - derivative)

    return [(step, error(step, False), error(step, True)) for step in steps]


def main() -> None:
    """Print the error of both differences, five learning rates on the valley, and two starts that end badly."""
    print("exp at 1:  step    forward    central")
    for row in difference_errors(torch.exp, torch.e, 1.0, [10.0**-power for power in range(1, 12, 2)]):
        print("{:14.0e} {:10.1e} {:10.1e}".format(*row))
    start = torch.tensor([-7.0, 2.0], dtype=torch.float64)
    for lr in (0.001, 0.1, 0.9, 1.0, 1.1):
        path = gradient_descent(valley, start, lr, 50)
        print(f"valley, learning rate {lr:5}: after 50 steps at height {valley(path[-1]):.4g}")
    for name, f, x, y in [("two minima", two_minima, 1.5, 1.0), ("saddle", saddle, 1.0, 0.0)]:
        end = gradient_descent(f, torch.tensor([x, y], dtype=torch.float64), 0.05, 200)[-1]
        print(f"{name} from ({x}, {y}): stops at ({end[0]:.3f}, {end[1]:.3f})")


if __name__ == "__main__":
    main()
