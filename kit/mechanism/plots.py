"""Plots: five kinds of figures from plain data; each function returns a matplotlib Figure and does not show it.

Run `python -m kit.mechanism.plots --out FOLDER` to draw the pictures of the ladder.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from math import ceil
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from kit.mechanism.landscapes import grid

Bounds = tuple[float, float, float, float]


def curves(lines: Mapping[str, Sequence[float]], x_label: str, y_label: str, log: bool = False) -> Figure:
    """Plot one line for each name over 0, 1, 2, ...; `log` makes the y axis logarithmic."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, yscale="log" if log else "linear")
    for name, values in lines.items():
        axes.plot([float(value) for value in values], label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def histograms(tensors: Mapping[str, Tensor], bins: int = 40) -> Figure:
    """Plot a histogram of each tensor (any shape) side by side, all over the same range; NaN and infinity are left out.

    The range is that of all values together.
    """
    finite = {name: values.detach().double()[values.isfinite()] for name, values in tensors.items()}
    every = torch.cat([*finite.values()])
    figure = Figure(figsize=(2.2 * len(tensors) + 0.6, 2.4), layout="constrained")
    for place, (name, values) in enumerate(finite.items(), 1):
        axes = figure.add_subplot(1, len(tensors), place, title=name, yticks=[])
        axes.hist(values.numpy(), bins=bins, range=(every.min().item(), every.max().item()))
    return figure


def paths(function: Callable[[Tensor], Tensor], walks: Mapping[str, Sequence], bounds: Bounds) -> Figure:
    """Plot paths of optimizers over the contour lines of a function of two variables; circle: start, star: end.

    function: points (2, h, w) -> values (h, w). walks: name -> points (steps, 2). bounds: left, right, bottom, top.
    A path that diverges is drawn up to its first value that is not finite. Contour levels are quantiles of the
    values, so that flat parts have contour lines too.
    """
    left, right, bottom, top = bounds
    if not (left < right and bottom < top):
        raise ValueError(f"bounds are {bounds}: expected left < right and bottom < top")
    points = grid(bounds, 80)
    values = function(points)
    levels = values.quantile(torch.linspace(0, 1, 24, dtype=values.dtype)[1:-1]).unique()
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="x", ylabel="y")
    axes.contour(*points.numpy(), values.numpy(), levels=levels.tolist(), cmap="Greys_r", linewidths=0.7)
    for name, walk in walks.items():
        walk = torch.as_tensor(walk, dtype=torch.float64)
        walk = walk[walk.isfinite().all(1).cumprod(0).bool()]
        (line,) = axes.plot(*walk.T.numpy(), marker=".", linewidth=1.2, label=name)
        axes.plot(*walk[0].tolist(), marker="o", color=line.get_color())
        axes.plot(*walk[-1].tolist(), marker="*", markersize=13, color=line.get_color())
    axes.set(xlim=(left, right), ylim=(bottom, top))
    if walks:
        axes.legend()
    return figure


def images(pictures: Tensor, titles: Sequence[object] | None = None, columns: int = 8) -> Figure:
    """Show images (n, h, w) in grey or (n, 3, h, w) in colour, `columns` to a row.

    uint8 is divided by 255; values within 0 to 1 are shown as they are; others, such as weights, are scaled from the
    minimum to the maximum of each image.
    """
    if pictures.ndim not in (3, 4) or pictures.numel() == 0 or (pictures.ndim == 4 and pictures.shape[1] != 3):
        raise ValueError(f"pictures have shape {tuple(pictures.shape)}: expected (n, h, w) or (n, 3, h, w)")
    columns = min(columns, len(pictures))
    rows = ceil(len(pictures) / columns)
    figure = Figure(figsize=(1.2 * columns, (1.2 if titles is None else 1.45) * rows), layout="constrained")
    for place, (picture, title) in enumerate(zip_longest(_to_unit_range(pictures), titles or []), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_axis_off()
        axes.imshow((picture if picture.ndim == 2 else picture.permute(1, 2, 0)).numpy(), cmap="gray", vmin=0, vmax=1)
        if titles is not None:
            axes.set_title(str(title), fontsize=9)
    return figure


def _to_unit_range(pictures: Tensor) -> Tensor:
    if pictures.dtype == torch.uint8:
        return pictures / 255
    pictures = pictures.detach().float()
    if pictures.min() >= 0 and pictures.max() <= 1:
        return pictures
    dims = tuple(range(1, pictures.ndim))
    low, high = pictures.amin(dims, keepdim=True), pictures.amax(dims, keepdim=True)
    return (pictures - low) / (high - low).clamp(min=1e-12)


def feature_spaces(features: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """Plot the features of the same images from several networks, one panel for each: a point for each image.

    features: title -> (n, f); labels: (n,). All panels show the first two principal components of the first entry, in
    one scale, and circles at its class means: points that are far from the circle of their class have moved.
    """
    reference = next(iter(features.values())).double()
    mean = reference.mean(0)
    _, sizes, components = torch.linalg.svd(reference - mean, full_matrices=False)
    explained = sizes**2 / (sizes**2).sum()
    project = lambda values: (values.double() - mean) @ components[:2].T  # noqa: E731
    figure = Figure(figsize=(4 * len(features), 4.3), layout="constrained")
    panels = figure.subplots(1, len(features), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(panels, features.items(), strict=True):
        axes.set(title=title, xlabel=f"first component ({explained[0]:.0%} of the variance)", aspect="equal")
        for label in labels.unique().tolist():
            axes.scatter(*project(values)[labels == label].T.numpy(), s=8, alpha=0.6, color=f"C{label}", label=label)
            centre = project(reference)[labels == label].mean(0).tolist()
            axes.plot(*centre, "o", ms=16, mfc="none", mec="black", mew=3.5)
            axes.plot(*centre, "o", ms=16, mfc="none", mec=f"C{label}", mew=2)
    panels[0].set_ylabel(f"second component ({explained[1]:.0%})")
    panels[0].legend(title="class", fontsize=8, markerscale=2)
    return figure


def main() -> None:
    """Write the pictures of the ladder into the folder --out and print their paths."""
    from kit.mechanism import initializers, linear_probe, networks, optimizers, segmentation
    from kit.mechanism.activations import sigmoid

    parser = argparse.ArgumentParser(description="Draw the pictures of the ladder.")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder to write to")
    folder = parser.parse_args().out
    torch.manual_seed(0)
    valley = optimizers.LANDSCAPES["stretched valley"]
    walks = {name: optimizers.optimize(make, valley, 30) for name, make in optimizers.EXAMPLES.items()}
    x = torch.randn(200, 100)
    outputs = initializers.activations_by_layer(x, lambda shape: initializers.normal(shape, 1), sigmoid)
    lenet = networks.lenet(16)
    digits, _ = networks.train_on_digits(lenet, scale=2)
    scenes, answers = segmentation.draw_scenes(6, seed=1), segmentation.FCN(len(segmentation.CLASSES))
    segmentation.train(answers, segmentation.draw_scenes(400), scenes)
    colours = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.4, 0.2], [0.3, 0.6, 0.9], [0.9, 0.9, 0.3]])
    classes = torch.cat([scenes.y, segmentation.predict(answers, scenes.x)])
    labels, results = linear_probe.compare_fine_tuning()
    figures = {
        "losses": curves({name: valley.function(walk.T) for name, walk in walks.items()}, "step", "loss", log=True),
        "optimizers": paths(valley.function, walks, (-8, 4, -3, 3)),
        "initializers": histograms({f"layer {place}": output for place, output in enumerate(outputs, 1)}),
        "filters": images(lenet.layers[0].weight[:, 0]),
        "feature_maps": images(networks.feature_maps(lenet, digits[:1], 2)[0]),
        "segmentation": images(torch.cat([scenes.x, colours[classes].permute(0, 3, 1, 2)]), columns=6),
        "linear_probe": feature_spaces(
            {f"{name}\nerror {r.error:.1%}, drift {r.drift:.2f}": r.features for name, r in results.items()}, labels
        ),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main()
