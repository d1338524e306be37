"""Plots: the five pictures that the ladder needs, from plain data; each returns a matplotlib Figure and shows nothing.

curves (what changes over time), histograms (how values are spread), paths (walks over a landscape of two variables),
images (digits, filters, feature maps) and draw_distortion (how training moved features; drawn by
`kit.mechanism.linear_probe`). `python -m kit.mechanism.plots --out FOLDER` draws one of each of the first four.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from math import ceil, isfinite
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

Bounds = tuple[float, float, float, float]


def curves(lines: Mapping[str, Sequence[float]], x_label: str, y_label: str, log: bool = False) -> Figure:
    """One line for each name, over 0, 1, 2, ...; `log` draws the y axis in powers of ten. NaN leaves a gap."""
    check_some(lines, "lines")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    for name, values in lines.items():
        axes.plot(range(len(values)), [float(value) for value in values], label=name)
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def histograms(tensors: Mapping[str, Tensor], bins: int = 40, bounds: tuple[float, float] | None = None) -> Figure:
    """A small histogram for each name, side by side, all over the same range so that they can be compared.

    tensors: any shapes. bounds: that range; without it, from the smallest to the largest value of all.
    Values that are not finite are left out and counted in the title.
    """
    check_some(tensors, "tensors")
    finite = {name: values.detach().double()[values.isfinite()] for name, values in tensors.items()}
    if bounds is None:
        every = torch.cat(list(finite.values()))
        bounds = (every.min().item(), every.max().item()) if len(every) else (0.0, 1.0)
    figure = Figure(figsize=(2.2 * len(tensors) + 0.6, 2.4), layout="constrained")
    for place, (name, values) in enumerate(finite.items(), 1):
        lost = tensors[name].numel() - len(values)
        axes = figure.add_subplot(1, len(tensors), place, title=f"{name} ({lost} not finite)" if lost else name)
        axes.hist(values.numpy(), bins=bins, range=bounds)
        axes.set_yticks([])
    return figure


def paths(function: Callable[[Tensor], Tensor], walks: Mapping[str, Sequence], bounds: Bounds) -> Figure:
    """Walks over a landscape, drawn as contours of equal height; each begins at a circle and ends at a star.

    function: takes points (2, h, w), gives heights (h, w), as those in `kit.mechanism.gradient` do; wrap one that takes
    a single point (2,) in `at_each_point`. walks: name -> list of (x, y), or a tensor (steps, 2). bounds: (left, right,
    bottom, top); what a walk does outside is cut off, and a walk ends before its first number that is not finite.
    """
    left, right, bottom, top = bounds
    if not (left < right and bottom < top):
        raise ValueError(f"bounds are {bounds}: expected (left, right, bottom, top), the smaller before the larger")
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="x", ylabel="y")
    contours(axes, function, bounds)
    for name, walk in walks.items():
        xs, ys = zip(*finite_part(walk), strict=True)
        (line,) = axes.plot(xs, ys, marker=".", linewidth=1.2, label=name)
        axes.plot(xs[0], ys[0], marker="o", color=line.get_color())
        axes.plot(xs[-1], ys[-1], marker="*", markersize=13, color=line.get_color())
    axes.set(xlim=(left, right), ylim=(bottom, top))
    if walks:
        axes.legend()
    return figure


def contours(axes: Axes, function: Callable[[Tensor], Tensor], bounds: Bounds, resolution: int = 80) -> None:
    """Draw the landscape; between one contour and the next lies the same area, so that flat places show theirs too."""
    left, right, bottom, top = bounds
    xs = torch.linspace(left, right, resolution, dtype=torch.float64)
    ys = torch.linspace(bottom, top, resolution, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"))
    heights = function(grid)
    if heights.shape != grid.shape[1:]:
        raise ValueError(
            f"the function gave shape {tuple(heights.shape)} for points of shape {tuple(grid.shape)}: "
            f"expected {tuple(grid.shape[1:])}; wrap a function of one point in at_each_point"
        )
    levels = heights[heights.isfinite()].quantile(torch.linspace(0, 1, 24, dtype=heights.dtype)[1:-1]).unique()
    axes.contour(xs.numpy(), ys.numpy(), heights.numpy(), levels=levels.tolist(), cmap="Greys_r", linewidths=0.7)


def finite_part(walk: Sequence) -> list[tuple[float, float]]:
    """The points (x, y) of a walk up to the first that is not finite; raises `ValueError` if there is none."""
    points = [(float(x), float(y)) for x, y in walk]
    length = next((place for place, point in enumerate(points) if not all(map(isfinite, point))), len(points))
    if length == 0:
        raise ValueError("a walk has no finite point to begin at: expected at least one (x, y)")
    return points[:length]


def at_each_point(function: Callable[[Tensor], Tensor | float]) -> Callable[[Tensor], Tensor]:
    """A function of one point (2,) made into a function of a grid (2, h, w), one point after the other."""

    def heights(grid: Tensor) -> Tensor:
        points = grid.flatten(1).T
        return torch.tensor([float(function(point)) for point in points], dtype=grid.dtype).reshape(grid.shape[1:])

    return heights


def images(pictures: Tensor, titles: Sequence[object] | None = None, columns: int = 8) -> Figure:
    """Pictures (n, h, w) in grey or (n, 3, h, w) in colour, `columns` to a row, with titles if given."""
    if pictures.ndim not in (3, 4) or pictures.numel() == 0 or (pictures.ndim == 4 and pictures.shape[1] != 3):
        raise ValueError(f"pictures have shape {tuple(pictures.shape)}: expected (n, h, w) or (n, 3, h, w)")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} pictures: expected one for each")
    columns = min(columns, len(pictures))
    rows = ceil(len(pictures) / columns)
    figure = Figure(figsize=(1.2 * columns, (1.2 if titles is None else 1.45) * rows), layout="constrained")
    for place, (picture, title) in enumerate(zip_longest(to_light(pictures), titles or []), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_axis_off()
        axes.imshow((picture if picture.ndim == 2 else picture.permute(1, 2, 0)).numpy(), cmap="gray", vmin=0, vmax=1)
        if titles is not None:
            axes.set_title(str(title), fontsize=9)
    return figure


def to_light(pictures: Tensor) -> Tensor:
    """Values from 0 (dark) to 1 (bright): bytes are divided by 255, what lies within 0 to 1 stays as it is.

    Anything else, such as weights, is stretched: each picture from its own smallest to its own largest value.
    """
    if pictures.dtype == torch.uint8:
        return pictures / 255
    pictures = pictures.detach().float()
    if pictures.min() >= 0 and pictures.max() <= 1:
        return pictures
    inside = tuple(range(1, pictures.ndim))
    low, high = pictures.amin(inside, keepdim=True), pictures.amax(inside, keepdim=True)
    return (pictures - low) / (high - low).clamp(min=1e-12)


def draw_distortion(features: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """The same images in the feature space of several networks: one panel for each title, a point for each image.

    features: title -> (n, f), the first being the reference. Its first two principal axes span all panels, in one
    scale, and its class means are the rings in all of them: points that left their ring have moved. labels: (n,).
    """
    check_some(features, "features")
    reference = next(iter(features.values())).double()
    if any(values.shape != reference.shape for values in features.values()) or len(labels) != len(reference):
        shapes = ", ".join(str(tuple(values.shape)) for values in features.values())
        raise ValueError(f"features have the shapes {shapes} for {len(labels)} labels: expected (n, f) for n labels")
    centre = reference.mean(0)
    _, sizes, axes_of = torch.linalg.svd(reference - centre, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    figure = Figure(figsize=(4 * len(features), 4.3), layout="constrained")
    panels = figure.subplots(1, len(features), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(panels, features.items(), strict=True):
        points, home = (values.double() - centre) @ axes_of[:2].T, (reference - centre) @ axes_of[:2].T
        axes.set(title=title, xlabel=f"first principal axis before ({shares[0]:.0%} of the spread)", aspect="equal")
        for label in labels.unique().tolist():
            axes.scatter(*points[labels == label].T.numpy(), s=8, alpha=0.6, color=f"C{label}", label=str(label))
            axes.plot(*home[labels == label].mean(0).tolist(), "o", ms=16, mfc="none", mec="black", mew=3.5)
            axes.plot(*home[labels == label].mean(0).tolist(), "o", ms=16, mfc="none", mec=f"C{label}", mew=2)
    panels[0].set_ylabel(f"second principal axis before ({shares[1]:.0%})")
    panels[0].legend(title="class", fontsize=8, markerscale=2)
    return figure


def check_some(named: Mapping[str, object], what: str) -> None:
    """Raise `ValueError` where there is nothing to draw."""
    if not named:
        raise ValueError(f"no {what} to draw: expected at least one name with its values")


def main() -> None:
    """Draw one picture of each kind into the folder --out and print their paths."""
    from kit.mechanism.activations import sigmoid
    from kit.mechanism.gradient import gradient_descent, valley
    from kit.mechanism.initializers import activations_by_layer, normal

    parser = argparse.ArgumentParser(description="Draw one picture of each kind.")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder to write to")
    folder = parser.parse_args().out
    start, dice = torch.tensor([-7.0, 2.0], dtype=torch.float64), torch.Generator().manual_seed(0)
    walks = {f"rate {lr}": gradient_descent(valley, start, lr, 30) for lr in (0.1, 0.95, 1.02)}
    x = torch.randn(200, 100, generator=dice)
    outputs = activations_by_layer(x, lambda shape: normal(shape, 1, generator=dice), sigmoid)
    drawn = {
        "curves": curves({name: valley(walk.T) for name, walk in walks.items()}, "step", "height", log=True),
        "histograms": histograms({f"layer {place}": output for place, output in enumerate(outputs, 1)}),
        "paths": paths(valley, walks, (-8, 8, -4, 4)),
        "images": images(torch.randn(16, 3, 7, 7, generator=dice), titles=range(16)),
    }
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png", dpi=100)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main()
