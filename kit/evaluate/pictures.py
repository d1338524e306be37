"""Pictures of a result: the confusion matrix, what went most wrong, and a few predictions with their images.

draw_confusion(evaluation, Path("confusion.png"))
"""

import base64
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.images import open_image, square
from kit.evaluate.evaluation import Evaluation

MOST_NUMBERED = 25
THUMBNAIL = 224
WIDE_FONTS = (
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",
    "Malgun Gothic",
    "AppleGothic",
    "Apple SD Gothic Neo",
    "NanumGothic",
)
RIGHT, WRONG = "#1f7a4d", "#b3261e"


def _figure(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _with_wide_fonts(draw: Callable[..., None]) -> Callable[..., None]:
    """Draw with a font for Korean, Japanese and Chinese class names, where one is installed."""

    @wraps(draw)
    def drawing(*arguments: Any, **options: Any) -> None:
        from matplotlib import font_manager, rc_context

        here = set(font_manager.get_font_names())
        with rc_context({"font.family": ["DejaVu Sans", *(name for name in WIDE_FONTS if name in here)]}):
            draw(*arguments, **options)

    return drawing


def _short(name: str, most: int) -> str:
    """A class name that fits; `$` would start a formula."""
    return (name if len(name) <= most else f"{name[: most - 1]}…").replace("$", r"\$")


@_with_wide_fonts
def draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """The confusion matrix as a PNG: rows are true classes, columns predictions; colours by share of the row."""
    counts = evaluation.confusion
    classes = len(counts)
    side = min(14, 2.6 + 0.34 * classes)
    figure = _figure(side, side)
    axes = figure.subplots()
    shares = counts.to_numpy() / counts.to_numpy().sum(1, keepdims=True).clip(1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(classes), [_short(name, 30) for name in counts.columns], rotation=90 if classes > 4 else 0)
    axes.set_yticks(range(classes), [_short(name, 30) for name in counts.index])
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= MOST_NUMBERED or counts.to_numpy().sum() < 5000:
        for (row, column), share in zip(_cells(classes), shares.flatten(), strict=True):
            if count := counts.iat[row, column]:
                axes.text(
                    column, row, count, ha="center", va="center", color="white" if share > 0.5 else "black", fontsize=9
                )
    axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=120)


def _cells(classes: int) -> Iterable[tuple[int, int]]:
    return ((row, column) for row in range(classes) for column in range(classes))


@_with_wide_fonts
def draw_predictions(rows: pd.DataFrame, path: Path, title: str = "") -> None:
    """Images with what was predicted above and, where that is wrong, the truth; green is right, red is wrong."""
    columns = min(4, max(1, len(rows)))
    lines = -(-len(rows) // columns) or 1
    figure = _figure(2.6 * columns, 3.0 * lines + (0.4 if title else 0))
    if title:
        figure.suptitle(title, fontsize=12)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid:
        axes.axis("off")
    for axes, row in zip(grid, rows.itertuples(), strict=False):
        axes.imshow(square(open_image(row.path, at_least=THUMBNAIL), THUMBNAIL, "crop"))
        said = f"{_short(row.prediction, 26)}  {row.probability:.0%}"
        text = said if row.correct else f"{said}\nis {_short(row.label, 26)}"
        axes.set_title(text, color=RIGHT if row.correct else WRONG, fontsize=10)
    figure.savefig(path, dpi=120)


def telling_examples(evaluation: Evaluation, count: int = 4) -> pd.DataFrame:
    """A few rows worth a look: the worst mistake where there is one, then the surest of each class, most sure first."""
    table = evaluation.predictions
    worst = table[~table["correct"]].nlargest(1, "loss")
    surest = table[table["correct"]].sort_values("probability", ascending=False)
    surest = surest.assign(turn=surest.groupby("label").cumcount()).sort_values("turn", kind="stable")
    return pd.concat([surest.head(count - len(worst)), worst])


def telling_mistakes(evaluation: Evaluation, count: int = 6) -> pd.DataFrame:
    """A few wrong predictions worth a look: of each pair of classes that were confused the worst, then the next."""
    table = evaluation.predictions
    wrong = table[~table["correct"]].sort_values("loss", ascending=False, kind="stable")
    turn = wrong.groupby(["label", "prediction"]).cumcount()
    return wrong.assign(turn=turn).sort_values("turn", kind="stable").head(count).drop(columns="turn")


def as_html(pictures: Iterable[Path]) -> str:
    """The pictures inside HTML text, for notebooks."""
    texts = (base64.b64encode(path.read_bytes()).decode() for path in pictures)
    return "".join(f'<img style="max-width:48%" src="data:image/png;base64,{text}">' for text in texts)
