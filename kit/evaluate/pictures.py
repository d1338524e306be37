"""Pictures of a result: the confusion matrix, the highest losses, and some predictions with their images.

draw_confusion(evaluation, Path("confusion.png"))
"""

import base64
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd

from kit.data.images import open_image, square
from kit.errors import ImageError
from kit.evaluate.result import Result
from kit.fonts import save_figure

MOST_NUMBERED = 25
THUMBNAIL = 224
RIGHT, WRONG = "#1f7a4d", "#b3261e"
DARK, PALE = "#0f766e", "#a9d5cf"
MOST_BARS, MOST_TARGETS = 40, 9
QUICK = {"compress_level": 1}  # photos shrink little at higher levels of PNG's compression


def _figure(width: float, height: float, layout: str = "constrained") -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def _short(name: str, most: int) -> str:
    """A class name cut to `most` letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def draw_confusion(evaluation: Result, path: Path) -> Path:
    """The confusion matrix as a PNG: rows are true classes, columns predictions; colours by share of the row."""
    counts = evaluation.confusion
    classes = len(counts)
    names = [_short(name, 30) for name in counts.index]
    longest = max(map(len, names))
    side = min(14, 2.6 + 0.34 * classes + 0.08 * max(0, longest - 10))
    figure = _figure(side, side)
    axes = figure.subplots()
    shares = counts.to_numpy() / counts.to_numpy().sum(1, keepdims=True).clip(1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(classes), names, rotation=90 if classes > 4 or longest > 10 else 0)
    axes.set_yticks(range(classes), names)
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= MOST_NUMBERED or counts.to_numpy().sum() < 5000:
        for (row, column), share in zip(_cells(classes), shares.flatten(), strict=True):
            if count := counts.iat[row, column]:
                axes.text(
                    column, row, count, ha="center", va="center", color="white" if share > 0.5 else "black", fontsize=9
                )
    axes.spines[:].set_visible(False)
    save_figure(figure, path, dpi=120)
    return path


def _cells(classes: int) -> Iterable[tuple[int, int]]:
    return ((row, column) for row in range(classes) for column in range(classes))


def draw_overview(result: Result, folder: Path) -> Path:
    """The picture of a whole result: the confusion matrix, the classes' F1, or predicted numbers over true ones."""
    return result.draw_overview(folder)


def draw_classes(result: Result, path: Path) -> Path:
    """F1 and average precision of each class as bars, the lowest F1 last; of many classes the 40 lowest."""
    table = result.breakdown.fillna(0).sort_values("f1", ascending=False).tail(MOST_BARS)
    figure = _figure(5.4, 1.2 + 0.34 * len(table))
    axes = figure.subplots()
    places = range(len(table), 0, -1)
    axes.barh(places, table["average_precision"], height=0.7, color=PALE, label="average precision")
    axes.barh(places, table["f1"], height=0.34, color=DARK, label="F1")
    axes.set_yticks(places, [f"{_short(str(row.Index), 30)} ({row.n:.0f})" for row in table.itertuples()])
    axes.set(xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    save_figure(figure, path, dpi=180)
    return path


def draw_scatter(result: Result, path: Path) -> Path:
    """Predicted over true numbers for each target, a dot for each image; on the line both are equal."""
    truth, numbers = result.truth, result.outputs
    count = min(MOST_TARGETS, len(result.vocab))
    columns = min(2, count)
    lines = -(-count // columns)
    side = 3.6 if count == 1 else 2.7
    figure = _figure(side * columns, side * lines)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.axis("off")
    for place, axes in enumerate(grid[:count]):
        both = truth[:, place], numbers[:, place]
        ends = [min(map(min, both)), max(map(max, both))]
        axes.plot(ends, ends, color=PALE, linewidth=2)
        axes.scatter(*both, s=16, alpha=0.6, color=DARK, linewidths=0)
        axes.set(xlabel="true", ylabel="predicted", title=_short(result.vocab[place], 30))
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, dpi=180)
    return path


def draw_predictions(result: Result, rows: pd.DataFrame, path: Path, title: str = "") -> Path:
    """Images of `rows` with their captions, green where the prediction is good, else red."""
    columns = min(4, max(1, len(rows)))
    lines = -(-len(rows) // columns) or 1
    width, height = 2.6 * columns, 3.0 * lines + (0.4 if title else 0)
    figure = _figure(width, height, layout="none")
    if title:
        figure.text(0.5, 1 - 0.12 / height, title, ha="center", va="top", fontsize=12)
    for place, row in enumerate(rows.itertuples()):
        left, bottom = 2.6 * (place % columns), 3.0 * (lines - 1 - place // columns)
        axes = figure.add_axes(((left + 0.1) / width, (bottom + 0.06) / height, 2.4 / width, 2.4 / height))
        axes.set_axis_off()
        with suppress(ImageError):  # it vanished just now
            axes.imshow(square(open_image(row.path, at_least=THUMBNAIL), THUMBNAIL, "crop"))
        text, good = result.caption(row)
        # A title of the axes would be placed by measuring their ticks, which takes most of the time.
        text = "\n".join(wrap(text, 30)[:3])
        middle, top = (left + 1.3) / width, (bottom + 2.5) / height
        figure.text(middle, top, text, ha="center", va="bottom", color=RIGHT if good else WRONG, fontsize=10)
    save_figure(figure, path, dpi=120, pil_kwargs=QUICK)
    return path


def as_html(pictures: Iterable[Path]) -> str:
    """The pictures inside HTML text, for notebooks."""
    texts = (base64.b64encode(path.read_bytes()).decode() for path in pictures)
    return "".join(f'<img style="max-width:48%" src="data:image/png;base64,{text}">' for text in texts)
