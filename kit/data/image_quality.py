"""Image quality: images that are too small, dark, bright, blurred or of one colour, as findings and as a picture.

draw_check(survey("photos"), check(survey("photos")), Path("check.png"))
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit.data.images import open_image
from kit.data.label_stats import numbers
from kit.data.splits import DUPLICATES
from kit.errors import some_of
from kit.fonts import save_figure

if TYPE_CHECKING:
    from kit.data.audit import Check

DARK, BRIGHT, EMPTY, BLURRED = 25, 235, 1, 0.15
THUMBNAIL, MAX_SHOWN, MAX_CLASSES = 128, 8, 12
MAX_HISTOGRAMS = 4
INK, BAR, HELD, QUIET = "#1d2b28", "#0f766e", "#7fb8b2", "#51645e"


@dataclass(frozen=True)
class QualityProblem:
    """A quality problem: its name for messages, and a function that finds the rows of a survey that have it."""

    name: str
    found: Callable[[pd.DataFrame, int], pd.Series]


PROBLEMS = (
    QualityProblem("smaller than half of what the network sees", lambda rows, size: _shorter(rows) * 2 < size),
    QualityProblem("almost black", lambda rows, size: (rows["light"] < DARK) & (rows["spread"] >= EMPTY)),
    QualityProblem("almost white", lambda rows, size: (rows["light"] > BRIGHT) & (rows["spread"] >= EMPTY)),
    QualityProblem("of one plain colour", lambda rows, size: rows["spread"] < EMPTY),
    QualityProblem("blurred", lambda rows, size: (rows["sharpness"] < BLURRED) & (rows["spread"] >= EMPTY)),
)
COLUMNS = ("width", "height", "light", "spread", "sharpness")


def has_quality_columns(table: pd.DataFrame) -> bool:
    """Whether a table has the columns of image quality, which `survey` adds."""
    return set(COLUMNS) <= set(table)


def quality_problems(table: pd.DataFrame, size: int) -> dict[str, pd.DataFrame]:
    """The rows of a survey with each quality problem, for a network whose input has `size` pixels a side."""
    found = {problem.name: table[problem.found(table, size)] for problem in PROBLEMS}
    return {name: rows for name, rows in found.items() if len(rows)}


def quality_notes(table: pd.DataFrame, size: int) -> list[str]:
    """Lines about the sizes and the quality problems of a survey's images."""
    if not len(table):
        return []
    width, height = int(table["width"].median()), int(table["height"].median())
    least, most = table.loc[_shorter(table).idxmin()], table.loc[_shorter(table).idxmax()]
    lines = [
        f"sizes from {least.width} x {least.height} to {most.width} x {most.height} pixels, median {width} x {height}"
    ]
    for name, rows in quality_problems(table, size).items():
        count = "1 image is" if len(rows) == 1 else f"{len(rows)} images are"
        lines.append(f"{count} {name}: {some_of([Path(path).name for path in rows['path']])}")
    return lines


def _shorter(rows: pd.DataFrame) -> pd.Series:
    return rows[["width", "height"]].min(axis=1)


def draw_check(table: pd.DataFrame, report: "Check", path: Path, size: int = 224) -> None:
    """Write a survey and its check as a PNG: images for each class, and examples of each problem."""
    from matplotlib.figure import Figure

    rows = _picture_rows(table, size)
    classes = sorted(report.classes, key=lambda label: -sum(report.classes[label].values()))[:MAX_CLASSES]
    tall = 2.8 if report.numbers else 1.1 + 0.28 * len(classes)
    figure = Figure(figsize=(11, tall + 1.75 * len(rows)), layout="constrained")
    parts = figure.subfigures(1 + len(rows), 1, height_ratios=[tall, *[1.75] * len(rows)], squeeze=False)[:, 0]
    if report.numbers:
        _draw_numbers(parts[0], table, report)
    else:
        _draw_classes(parts[0], classes, report)
    for part, (title, pictures) in zip(parts[1:], rows, strict=True):
        _draw_pictures(part, title, pictures)
    save_figure(figure, path, dpi=110)


def _draw_classes(figure: Any, classes: list[str], report: "Check") -> None:
    """A bar for each class: training images, then held-out ones."""
    axes = figure.subplots()
    train = np.array([report.classes[label].get("train", 0) for label in classes])
    held = np.array([sum(report.classes[label].values()) for label in classes]) - train
    places = np.arange(len(classes))[::-1]
    axes.barh(places, train, color=BAR, label="train")
    axes.barh(places, held, left=train, color=BAR, alpha=0.45, label="held out")
    axes.set_yticks(places, [_short(label) for label in classes])
    axes.set_xlabel("images")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    more = (
        f" (the largest {len(classes)} of {len(report.classes)} classes)" if len(report.classes) > len(classes) else ""
    )
    figure.suptitle(f"{report.images} images{more}", color=INK, fontsize=13, x=0.01, ha="left")


def _draw_numbers(figure: Any, table: pd.DataFrame, report: "Check") -> None:
    """A histogram of each target: training images and held-out ones."""
    values, train = numbers(table), (table["split"] == "train").to_numpy()
    names = list(report.numbers)[:MAX_HISTOGRAMS]
    for place, (axes, name) in enumerate(zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True)):
        axes.hist([values[train, place], values[~train, place]], bins=20, stacked=True, color=[BAR, HELD])
        axes.set_xlabel(_short(name))
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report.images} images; pale: held out", color=INK, fontsize=13, x=0.01, ha="left")


def _picture_rows(table: pd.DataFrame, size: int) -> list[tuple[str, list[tuple[str, str]]]]:
    """Rows of the picture: a title, and paths and captions of at most 8 images."""
    rows = []
    grouped = table[table["group"].str.startswith(DUPLICATES)]
    for several, title in ((True, "copies with different labels"), (False, "copies")):
        chosen = [part for _, part in grouped.groupby("group") if (part["label"].nunique() > 1) == several]
        if chosen:
            pictures = [(row.path, row.label) for part in chosen for row in part.itertuples()]
            rows.append((f"{title}: {len(chosen)} groups", pictures[:MAX_SHOWN]))
    for name, part in quality_problems(table, size).items():
        order = part.sort_values("sharpness") if name == "blurred" else part
        rows.append((f"{name}: {len(part)}", [(row.path, row.label) for row in order.head(MAX_SHOWN).itertuples()]))
    return rows


def _draw_pictures(figure: Any, title: str, pictures: list[tuple[str, str]]) -> None:
    figure.suptitle(title, color=INK, fontsize=11, x=0.01, ha="left")
    for axes, given in zip(
        figure.subplots(1, MAX_SHOWN, squeeze=False)[0], [*pictures, *[None] * MAX_SHOWN], strict=False
    ):
        axes.axis("off")
        if given:
            path, label = given
            axes.set_title(_short(label), fontsize=8, color=QUIET)
            axes.imshow(_thumbnail(path))


def _thumbnail(path: str) -> np.ndarray:
    image = open_image(path, at_least=THUMBNAIL)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def _short(label: str) -> str:
    return label if len(label) <= 22 else f"{label[:21]}…"
