"""Gradient: partial derivatives measured by finite differences, and gradient descent.

A numerical gradient needs two evaluations of the function for each element, which is too slow for training. It is the
reference that every faster gradient is tested against. Run `python -m kit.mechanism.gradient` to see how its error
depends on the step size, and what gradient descent does with a learning rate that is too small or too large.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor | float]


@torch.no_grad()
def numerical_gradient(f: Function, x: Tensor, step: float = 1e-5, central: bool = True) -> Tensor:
    """Return the partial derivatives of the scalar function `f` at `x`, in the shape of x; x must be float64.

    forward difference: (f(x + step) - f(x)) / step, with an error proportional to step.
    central difference: (f(x + step) - f(x - step)) / (2 step), with an error proportional to step^2.
    If the step is too small, rounding errors dominate; 1e-5 is about the best for central differences in float64.
    `x` is changed in place and restored, so `f` may ignore its argument and use a layer that holds the same tensor.
    """
    if x.dtype != torch.float64:
        raise ValueError(f"a numerical gradient in {x.dtype} is mostly rounding error: use x.double()")
    if not step > 0:
        raise ValueError(f"step is {step}: expected a small positive number such as 1e-5")
    x = x.detach()
    gradient = torch.zeros_like(x)
    here = 0.0 if central else float(f(x))
    for index in product(*(range(size) for size in x.shape)):
        value = x[index].item()
        x[index] = value + step
        above = float(f(x))
        x[index] = value - step
        below = float(f(x)) if central else here
        x[index] = value
        gradient[index] = (above - below) / (2 * step if central else step)
    return gradient


def relative_error(a: Tensor, b: Tensor, floor: float = 1e-4) -> float:
    """Return max |a - b| / max(|a|, |b|, floor) over all elements of two gradients of the same shape.

    0 means equal. A correct float64 gradient is below 1e-6 against the numerical one; a wrong one is near 1.
    `floor` avoids comparing rounding errors where both gradients are almost 0.
    """
    if a.shape != b.shape or not a.numel():
        raise ValueError(f"gradients of shapes {tuple(a.shape)} and {tuple(b.shape)}: expected the same, not empty")
    size = torch.stack([a.abs().max(), b.abs().max()]).max().clamp(min=floor)
    return ((a - b).abs().max() / size).item()


def gradient_descent(
    f: Function, start: Tensor, lr: float, steps: int, gradient: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Repeat x = x - lr * gradient(x) for `steps` steps; return the path (steps + 1, *start.shape), `start` first.

    `gradient` is a function of x; without it, the numerical gradient of `f` is used. With a learning rate that is too
    large the path diverges; it is returned as it is.
    Source: A. Cauchy, Méthode générale pour la résolution des systèmes d'équations simultanées, 1847.
    """
    if not lr > 0:
        raise ValueError(f"learning rate is {lr}: expected a positive number such as 0.1")
    path = [start.detach().clone()]
    for _ in range(steps):
        x = path[-1]
        path.append(x - lr * (gradient(x) if gradient else numerical_gradient(f, x)))
    return torch.stack(path)


def main() -> None:
    """Print the errors of both differences, then gradient descent on three surfaces."""
    from kit.mechanism.landscapes import LANDSCAPES

    print("derivative of exp at 1; error by step size\n  step  forward  central")
    one = torch.tensor(1.0, dtype=torch.float64)
    for step in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11):
        errors = [abs(numerical_gradient(torch.exp, one, step, central).item() - torch.e) for central in (False, True)]
        print(f"{step:6.0e}  {errors[0]:.1e}  {errors[1]:.1e}")
    for name, lr, start in [
        *(("stretched valley", lr, (-7.0, 2.0)) for lr in (0.001, 0.1, 0.9, 1.0, 1.1)),
        ("two minima", 0.05, (1.5, 1.0)),
        ("saddle", 0.05, (1.0, 0.0)),
    ]:
        f = LANDSCAPES[name].function
        end = gradient_descent(f, torch.tensor(start, dtype=torch.float64), lr, 200)[-1]
        print(f"{name} from {start}, lr {lr}: ends at ({end[0]:.3g}, {end[1]:.3g}), value {f(end):.3g}")


if __name__ == "__main__":
    main()
