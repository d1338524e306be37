"""Landscapes: functions of two parameters that show how gradient descent behaves, with gradients written by hand.

Training moves in a space of millions of parameters; with two parameters the path can be drawn. The last landscape is
the loss of a small network on real data. Run `python -m kit.mechanism.landscapes` to descend on each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kit.mechanism.gradient import gradient_descent

# Petal length and width in cm, minus 4.9 and 1.7 (which takes the place of a bias), of the first seven Iris versicolor
# and virginica in R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936.
LENGTH = torch.tensor([4.7, 4.5, 4.9, 4.0, 4.6, 4.5, 4.7, 6.0, 5.1, 5.9, 5.6, 5.8, 6.6, 4.5], dtype=torch.float64) - 4.9
WIDTH = torch.tensor([1.4, 1.5, 1.5, 1.3, 1.5, 1.3, 1.6, 2.5, 1.9, 2.1, 1.8, 2.2, 2.1, 1.7], dtype=torch.float64) - 1.7


@dataclass(frozen=True)
class Landscape:
    """A function of a point (x, y), its gradient, and the settings of an example of gradient descent on it."""

    name: str
    formula: str
    function: Callable[[Tensor], Tensor]
    """point (2,) -> value (); or a grid of points (2, ...) -> values (...)."""
    gradient: Callable[[Tensor], Tensor]
    """point (2,) -> gradient (2,)."""
    start: tuple[float, float]
    bounds: tuple[float, float, float, float]
    """The part to draw: left, right, bottom, top."""
    lr: float
    """A learning rate for plain gradient descent."""
    description: str
    curvature: float | None = None
    """The largest second derivative, where it is the same at every point; else None."""
    axes: tuple[str, str] = ("x", "y")


def network_loss(point: Tensor) -> Tensor:
    """Mean squared error of a network with one hidden unit, width = v tanh(w length), on 14 petals.

    point: the weights (w, v), of shape (2,) or (2, ...); result: () or (...).
    """
    w, v = point[0][..., None], point[1][..., None]
    return ((v * torch.tanh(w * LENGTH) - WIDTH) ** 2).mean(-1)


def network_gradient(point: Tensor) -> Tensor:
    """Gradient of `network_loss` by the chain rule, with tanh' = 1 - tanh^2: (2,) -> (2,)."""
    w, v = point
    hidden = torch.tanh(w * LENGTH)  # (14,)
    error = 2 * (v * hidden - WIDTH) / len(WIDTH)  # (14,): derivative of the loss with respect to each prediction
    return torch.stack([(error * v * (1 - hidden**2) * LENGTH).sum(), (error * hidden).sum()])


def curvatures(landscape: Landscape, point: Tensor, step: float = 1e-4) -> Tensor:
    """Return the smallest and largest eigenvalue of the Hessian at a point (2,) float64: (2,).

    Both are positive at a minimum; one is negative at a saddle. The Hessian is the central difference of the gradient.
    """
    shifts = step * torch.eye(2, dtype=torch.float64)
    columns = [(landscape.gradient(point + shift) - landscape.gradient(point - shift)) / (2 * step) for shift in shifts]
    hessian = torch.stack(columns)
    return torch.linalg.eigvalsh((hessian + hessian.T) / 2)


def classify_point(landscape: Landscape, point: Tensor, tolerance: float = 1e-3) -> str:
    """Return "slope", or where the gradient is almost 0, "minimum", "saddle" (or maximum) or "plateau".

    point: (2,) float64. The kind of a stationary point follows from the eigenvalues of the Hessian.
    """
    if landscape.gradient(point).norm() >= tolerance:
        return "slope"
    lowest, highest = curvatures(landscape, point).tolist()
    if lowest < -tolerance:
        return "saddle"
    return "minimum" if highest > tolerance else "plateau"


def max_stable_lr(curvature: float, momentum: float = 0.0, nesterov: bool = False) -> float:
    """Return the learning rate above which SGD diverges on a parabola with second derivative c and momentum m.

    Plain SGD multiplies the distance by 1 - lr c in each step, which diverges above lr = 2 / c. With momentum the
    limit is 2 (1 + m) / c (B. Polyak, Some methods of speeding up the convergence of iteration methods, 1964), with
    Nesterov momentum 2 (1 + m) / ((1 + 2 m) c): there an eigenvalue of the update of (distance, velocity) reaches -1.
    """
    if not curvature > 0:
        raise ValueError(f"curvature is {curvature}: expected a positive number; otherwise there is no minimum")
    return 2 * (1 + momentum) / curvature / (1 + 2 * momentum if nesterov else 1)


def grid(bounds: tuple[float, float, float, float], size: int) -> Tensor:
    """Return size x size points that cover `bounds`: (2, size, size), float64; rows go from bottom to top."""
    left, right, bottom, top = bounds
    x = torch.linspace(left, right, size, dtype=torch.float64)
    y = torch.linspace(bottom, top, size, dtype=torch.float64)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


LANDSCAPES = {
    landscape.name: landscape
    for landscape in [
        Landscape(
            name="parabola",
            formula="x² + y²",
            function=lambda p: p[0] ** 2 + p[1] ** 2,
            gradient=lambda p: 2 * p,
            start=(-4.0, 3.0), bounds=(-5.0, 5.0, -5.0, 5.0), lr=0.1, curvature=2.0,
            description="The same curvature in every direction, so minus the gradient points to the minimum.",
        ),
        Landscape(
            name="stretched valley",
            formula="x² / 20 + y²",
            function=lambda p: p[0] ** 2 / 20 + p[1] ** 2,
            gradient=lambda p: torch.stack([p[0] / 10, 2 * p[1]]),
            start=(-7.0, 2.0), bounds=(-10.0, 10.0, -10.0, 10.0), lr=0.95, curvature=2.0,
            description="Steep along y, flat along x: y limits the learning rate, and x needs a large one.",
        ),
        Landscape(
            name="saddle",
            formula="x² − y²",
            function=lambda p: p[0] ** 2 - p[1] ** 2,
            gradient=lambda p: torch.stack([2 * p[0], -2 * p[1]]),
            start=(-1.8, 0.01), bounds=(-2.0, 2.0, -2.0, 2.0), lr=0.05,
            description="A minimum along x, a maximum along y. Gradient descent that starts at y = 0 stops at (0, 0).",
        ),
        Landscape(
            name="two minima",
            formula="(x² − 1)² + 0.3 x + y²",
            function=lambda p: (p[0] ** 2 - 1) ** 2 + 0.3 * p[0] + p[1] ** 2,
            gradient=lambda p: torch.stack([4 * p[0] * (p[0] ** 2 - 1) + 0.3, 2 * p[1]]),
            start=(1.6, 1.2), bounds=(-2.0, 2.0, -2.0, 2.0), lr=0.05,
            description="The left minimum is the lower one. The start and the momentum decide which one is reached.",
        ),
        Landscape(
            name="tiny network",
            formula="mean (v tanh wl − width)²",
            function=network_loss,
            gradient=network_gradient,
            start=(-0.6, 1.2), bounds=(-2.0, 2.0, -2.0, 2.0), lr=1.0, axes=("w", "v"),
            description="The loss of a network with two weights that predicts the width of 14 iris petals from their "
            "length l. The two minima are the same network with both signs reversed; between them is a saddle.",
        ),
    ]
}  # fmt: skip


def main() -> None:
    """Print where 100 steps of plain gradient descent end on each landscape, and the curvature there."""
    for landscape in LANDSCAPES.values():
        start = torch.tensor(landscape.start, dtype=torch.float64)
        point = gradient_descent(landscape.function, start, landscape.lr, 100, landscape.gradient)[-1]
        value, (low, high) = landscape.function(point), curvatures(landscape, point)
        end = f"({point[0]:9.3g}, {point[1]:9.3g})"
        print(f"{landscape.name:<16} ends at {end}, value {value:9.3g}, curvature {low:6.2f} to {high:6.2f}")
    plain, with_momentum = max_stable_lr(2.0), max_stable_lr(2.0, 0.9)
    print(f"stretched valley: SGD diverges above lr {plain:.3g}, with momentum 0.9 above {with_momentum:.3g}")


if __name__ == "__main__":
    main()
