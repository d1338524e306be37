"""Landscapes: functions of two numbers to walk down, each with a lesson about descent and its gradient written out.

A training run walks like this among millions of weights; among two it can be looked at. A landscape is a formula, where
it gets interesting, and its story; `largest_rate` says beyond which learning rate the walk climbs instead. The last one
is a real loss: a tiny network on real flowers. `python -m kit.mechanism.landscapes` walks down all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kit.mechanism.gradient import bowl, saddle, two_minima, valley

# Petal length and width in cm, each less its middle (a bias held still), of the first seven Iris versicolor and
# virginica in R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936 (measured by E. Anderson).
LENGTH = torch.tensor([4.7, 4.5, 4.9, 4.0, 4.6, 4.5, 4.7, 6.0, 5.1, 5.9, 5.6, 5.8, 6.6, 4.5], dtype=torch.float64) - 4.9
WIDTH = torch.tensor([1.4, 1.5, 1.5, 1.3, 1.5, 1.3, 1.6, 2.5, 1.9, 2.1, 1.8, 2.2, 2.1, 1.7], dtype=torch.float64) - 1.7


@dataclass(frozen=True)
class Landscape:
    """A function of a point (x, y), with what a walk down it needs."""

    name: str
    function: Callable[[Tensor], Tensor]
    """point (2,) -> height (); or a grid of points (2, ...) -> heights (...)."""
    gradient: Callable[[Tensor], Tensor]
    """point (2,) -> gradient (2,), by hand."""
    start: tuple[float, float]
    """Where a walk shows most."""
    bounds: tuple[float, float, float, float]
    """The map's edges: left, right, bottom, top."""
    rate: float
    """A learning rate with which plain gradient descent shows the story."""
    formula: str
    story: str
    curvature: float | None = None
    """The steepest curvature, where it is the same everywhere; else None."""
    axes: tuple[str, str] = ("x", "y")

    def __post_init__(self) -> None:
        (x, y), (left, right, bottom, top) = self.start, self.bounds
        if not (left <= x <= right and bottom <= y <= top):
            raise ValueError(f"{self.name}: start {self.start} is off the map {self.bounds}; move it inside")


def bowl_gradient(point: Tensor) -> Tensor:
    """(2 x, 2 y)."""
    return 2 * point


def valley_gradient(point: Tensor) -> Tensor:
    """(x / 10, 2 y): twenty times as steep across as along."""
    return torch.stack([point[0] / 10, 2 * point[1]])


def saddle_gradient(point: Tensor) -> Tensor:
    """(2 x, -2 y)."""
    return torch.stack([2 * point[0], -2 * point[1]])


def two_minima_gradient(point: Tensor) -> Tensor:
    """(4 x (x^2 - 1) + 0.3, 2 y)."""
    return torch.stack([4 * point[0] * (point[0] ** 2 - 1) + 0.3, 2 * point[1]])


def network_loss(point: Tensor) -> Tensor:
    """Mean squared error of a network of one hidden unit, width = v tanh(w length), on 14 real petals.

    point: its two weights (w, v), (2,) or (2, ...) -> loss () or (...).
    """
    w, v = point[0][..., None], point[1][..., None]
    return ((v * torch.tanh(w * LENGTH) - WIDTH) ** 2).mean(-1)


def network_gradient(point: Tensor) -> Tensor:
    """The same network's backward pass: (2,) -> (2,). tanh' = 1 - tanh^2."""
    w, v = point
    hidden = torch.tanh(w * LENGTH)  # (14,)
    error = 2 * (v * hidden - WIDTH) / len(WIDTH)  # (14,): how the loss changes with each prediction
    return torch.stack([(error * v * (1 - hidden**2) * LENGTH).sum(), (error * hidden).sum()])


def curvatures(landscape: Landscape, point: Tensor, step: float = 1e-4) -> Tensor:
    """The smallest and the largest curvature at a point (2,) float64: (2,), the eigenvalues of the second derivatives.

    Both above 0: the ground bends up all around, as at a minimum. One below: downhill is still open, as at a saddle.
    Measured from the gradient by central differences.
    """
    shifts = step * torch.eye(2, dtype=torch.float64)
    columns = [(landscape.gradient(point + shift) - landscape.gradient(point - shift)) / (2 * step) for shift in shifts]
    hessian = torch.stack(columns)
    return torch.linalg.eigvalsh((hessian + hessian.T) / 2)


def kind_of_place(landscape: Landscape, point: Tensor, small: float = 1e-3) -> str:
    """A slope; or, where the gradient is shorter than `small`: a minimum, a saddle or maximum, or a flat plateau.

    Returns "slope", "minimum", "saddle" or "plateau". point: (2,) float64. The last three: by how it bends.
    """
    if landscape.gradient(point).norm() >= small:
        return "slope"
    lowest, highest = curvatures(landscape, point).tolist()
    if lowest < -small:
        return "saddle"
    return "minimum" if highest > small else "plateau"


def largest_rate(curvature: float, momentum: float = 0.0, nesterov: bool = False) -> float:
    """The learning rate beyond which SGD climbs out of a parabola of this curvature c, with momentum m.

    Plain: a step multiplies the distance by 1 - lr c, which grows from lr = 2 / c on. With momentum 2 (1 + m) / c
    (B. Polyak, Some methods of speeding up the convergence of iteration methods, 1964). With Nesterov's look ahead
    2 (1 + m) / ((1 + 2 m) c): where the slower root of distance and velocity, one step to the next, reaches -1.
    """
    if not curvature > 0:
        raise ValueError(f"curvature is {curvature}: expected above 0; elsewhere there is nothing to settle into")
    return 2 * (1 + momentum) / curvature / (1 + 2 * momentum if nesterov else 1)


def grid(bounds: tuple[float, float, float, float], size: int) -> Tensor:
    """size x size points all over a map: (2, size, size), float64; rows go from bottom to top."""
    left, right, bottom, top = bounds
    x = torch.linspace(left, right, size, dtype=torch.float64)
    y = torch.linspace(bottom, top, size, dtype=torch.float64)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def square(half: float) -> tuple[float, float, float, float]:
    """The bounds of a map that reaches as far in every direction from (0, 0)."""
    return -half, half, -half, half


LANDSCAPES = {
    landscape.name: landscape
    for landscape in [
        Landscape(
            "parabola", bowl, bowl_gradient, (-4.0, 3.0), square(5.0), 0.1, "x² + y²",
            "The same curvature in every direction, so downhill points straight at the minimum.",
            curvature=2.0,
        ),
        Landscape(
            "stretched valley", valley, valley_gradient, (-7.0, 2.0), square(10.0), 0.95, "x² / 20 + y²",
            "Steep across, gentle along: the steep side limits the learning rate, the gentle side needs a large one.",
            curvature=2.0,
        ),
        Landscape(
            "saddle", saddle, saddle_gradient, (-1.8, 0.01), square(2.0), 0.05, "x² − y²",
            "Up along x, down along y, flat in the middle, and no minimum. From y = 0 exactly, descent stops there.",
        ),
        Landscape(
            "two minima", two_minima, two_minima_gradient, (1.6, 1.2), square(2.0), 0.05, "(x² − 1)² + 0.3 x + y²",
            "The left minimum is the lower one. Which one a walk finds depends on its start and on its momentum.",
        ),
        Landscape(
            "tiny network", network_loss, network_gradient, (-0.6, 1.2), square(2.0), 1.0, "mean (v tanh wl − width)²",
            "The loss of a real network that tells the width of 14 iris petals from their length l, over its "
            "two weights. Both minima are the same network, all signs turned; between them lies a saddle.",
            axes=("w", "v"),
        ),
    ]
}  # fmt: skip


def main() -> None:
    """Print where plain gradient descent gets to on each landscape in 100 steps, and how the ground bends there."""
    for landscape in LANDSCAPES.values():
        point = torch.tensor(landscape.start, dtype=torch.float64)
        for _ in range(100):
            point = point - landscape.rate * landscape.gradient(point)
        height, (low, high) = landscape.function(point), curvatures(landscape, point)
        end = f"({point[0]:9.3g}, {point[1]:9.3g})"
        print(f"{landscape.name:<16} ends at {end}, height {height:9.3g}, curvature {low:6.2f} to {high:6.2f}")
    plain, with_momentum = largest_rate(2.0), largest_rate(2.0, 0.9)
    print(f"On the valley SGD climbs beyond learning rate {plain:.3g}, with momentum 0.9 beyond {with_momentum:.3g}")


if __name__ == "__main__":
    main()
