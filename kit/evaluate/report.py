"""report.html: one file about a run that a person would rather look at; it asks nothing of any network.

write_report(Report(evaluation, ...), Path("report.html"))

The words and the looks are in report.html beside this module (Jinja2, which escapes every text); here the numbers and
pictures are made ready for it.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader

from kit.data.audit import Finding
from kit.data.images import open_image, square
from kit.errors import ImageError
from kit.evaluate.calibration import calibration_error
from kit.evaluate.confusion import confused_most
from kit.evaluate.evaluation import Evaluation
from kit.evaluate.regression import RegressionEvaluation
from kit.evaluate.result import Result
from kit.files import write_text
from kit.intervals import Estimate
from kit.recipe import Recipe
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION, percent, shown, title_of

HERE = Path(__file__).parent
PHOTO, QUALITY = 176, 72
MOST_RIGHT, MOST_WRONG, MOST_BEHIND, MOST_WORST = 3, 8, 300, 12
MOST_LEVEL, SHORT = 4, 3
BINS = 10
NOUN = {CLASSIFICATION: "classes", MULTILABEL: "classes", REGRESSION: "numbers"}
SHARES = "Precision: how often it is right when it says so. Recall: how many of this class it finds."
ABOUT_TABLE = {
    CLASSIFICATION: {"title": "Class by class", "text": SHARES},
    MULTILABEL: {
        "title": "Class by class",
        "text": f"{SHARES} Average precision asks for no threshold: how well the likeliest images are the right ones.",
    },
    REGRESSION: {
        "title": "Number by number",
        "text": "Off by: the mean absolute error, with its 95 % interval. RMSE weighs large errors more. R2: the share "
        "of the variation that is explained.",
    },
}
OVERVIEW = {
    MULTILABEL: {"title": "What it finds", "text": "In brackets, how many images have the class."},
    REGRESSION: {"title": "What it says, and what is true", "text": "A dot an image; on the line it would be right."},
}
ACCENT, LINE = "#0f766e", "#c9d4d1"


@dataclass(frozen=True)
class Report:
    """What a report tells. chosen: as in recipe.json; overview, curves: PNG files, no curves of several trainings;
    command: the one that makes the run again; notes: further lines about the result; findings: of the look before
    training."""

    result: Result
    recipe: Recipe
    chosen: Mapping[str, Any]
    overview: Path
    command: str
    curves: Path | None = None
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = field(default_factory=list)


def write_report(report: Report, path: Path) -> None:
    """Write the report as one HTML file."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The report as the text of one HTML file."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True)
    result = report.result
    classified = isinstance(result, Evaluation)
    overview = {"picture": picture_of(report.overview)} | OVERVIEW.get(result.task, {})
    return environment.get_template("report.html").render(
        title=title_of(result.vocab, result.task),
        subtitle=_subtitle(report.recipe, report.chosen),
        rate=_headline(result),
        notes=report.notes,
        matrix=_matrix(result) if classified else None,
        overview=None if classified else overview,
        worst=_photos(result, result.top_losses(MOST_WORST)),
        table=_table(result),
        curves=report.curves and picture_of(report.curves),
        calibration=_calibration(result) if classified else None,
        findings=report.findings,
        command=report.command,
        recipe=_recipe(report.recipe),
        chosen=_flat(report.chosen),
    )


def _subtitle(recipe: Recipe, chosen: dict[str, Any]) -> str:
    """The training in a few words."""
    start = "a random start" if recipe.weights == "none" else f"{recipe.weights} weights"
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    folds = f", {chosen['folds']} folds" if chosen.get("folds") else ""
    return f"{chosen.get('arch', recipe.arch)}, from {start}, {epochs}{folds}"


def picture_of(path: Path) -> str:
    """A PNG file inside the page."""
    return data_url(path.read_bytes(), "png")


def data_url(data: bytes, kind: str) -> str:
    """A picture inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _headline(result: Result) -> dict[str, str]:
    """The one figure of the task with a sentence, and its places on a scale from 0."""
    held_out = f"{result.n:,} images that it was not trained on"
    if isinstance(result, Evaluation):
        rate, wrong = result.headline, int((~result.predictions["correct"]).sum())
        text = f"Wrong on {wrong:,} of {held_out}. The true rate"
        return _scaled("How often it is wrong", rate, text, "", min(1.0, max(0.05, 1.25 * rate.high)), percent)
    if isinstance(result, RegressionEvaluation) and len(result.vocab) == 1:
        off, score = result.off_by(0), result.headline
        text = f"The mean absolute error on {held_out}; R2 is {score.value:.3f}. The true mean"
        return _scaled("How far off it is", off, text, "off on average", 1.25 * off.high, shown)
    heading = {MULTILABEL: "How much it finds, and how rightly", REGRESSION: "How much it explains"}[result.task]
    text = f"The mean of {len(result.vocab)} {NOUN[result.task]}, on {held_out}. It"
    return _scaled(heading, result.headline, text, result.words, 1.0, "{:.3f}".format)


def _scaled(
    heading: str, found: Estimate, text: str, name: str, top: float, figure: Callable[[float], str]
) -> dict[str, str]:
    """An estimate as texts and places from 0 to `top`."""
    places = {"low_at": found.low / top, "high_at": found.high / top, "at": found.value / top}
    sentence = f"{text} lies between {figure(found.low)} and {figure(found.high)} (95 % interval)."
    about = {"heading": heading, "name": name, "value": figure(found.value), "sentence": sentence}
    about["top"] = percent(top).replace(".0", "") if figure is percent else shown(top)
    return about | {name: f"{min(1.0, max(0.0, place)):.4f}" for name, place in places.items()}


def _matrix(evaluation: Evaluation) -> dict[str, Any] | None:
    """The matrix as rows of cells, and the photos behind each of them; at most 25 classes, those confused most."""
    counts, vocab = evaluation.confusion.to_numpy(), evaluation.vocab
    cells = {(int(true), int(said)): int(counts[true, said]) for true, said in np.argwhere(counts)}
    shown = confused_most(cells, len(vocab))
    if not shown:
        return None
    rows = [
        {
            "name": vocab[true],
            "cells": [_cell(vocab, true, said, int(counts[true, said]), int(counts[true].sum())) for said in shown],
        }
        for true in shown
    ]
    which = (
        f" Shown are the {len(shown)} of {len(vocab)} classes that are confused most."
        if len(shown) < len(vocab)
        else ""
    )
    names = [vocab[place] for place in shown]
    tall = len(names) > MOST_LEVEL and max(map(len, names)) > SHORT
    return {"names": names, "rows": rows, "which": which, "tall": tall, "behind": _behind(evaluation, shown)}


def _cell(vocab: Sequence[str], true: int, said: int, count: int, total: int) -> dict[str, Any]:
    title = f"{count} of {total} {vocab[true]}: " + ("right" if true == said else f"taken for {vocab[said]}")
    kind = "right" if true == said else "wrong"
    return {
        "count": count,
        "kind": kind,
        "share": f"{count / max(1, total):.3f}",
        "title": title,
        "id": f"c{true}-{said}",
    }


def _behind(evaluation: Evaluation, shown: Sequence[int]) -> list[dict[str, Any]]:
    """The photos behind the cells, wrong ones first, until there are 300: the surest of each cell."""
    vocab, table, left, behind = evaluation.vocab, evaluation.predictions, MOST_BEHIND, []
    wanted = sorted(((true, said) for true in shown for said in shown), key=lambda pair: pair[0] == pair[1])
    by_cell = dict(list(table.groupby(["label", "prediction"])))
    for true, said in wanted:
        rows = by_cell.get((vocab[true], vocab[said]))
        most = min(left, MOST_RIGHT if true == said else MOST_WRONG)
        if rows is None or not most:
            continue
        photos = _photos(evaluation, rows.nlargest(most, "probability"))
        left -= len(photos)
        counted = _cell(vocab, true, said, len(rows), int((table["label"] == vocab[true]).sum()))
        behind.append({"id": counted["id"], "title": counted["title"], "photos": photos})
    return behind


def _photos(result: Result, rows: pd.DataFrame) -> list[dict[str, str]]:
    """Small pictures with what they are and what they were taken for; a file that is gone meanwhile is left out."""
    found = []
    for row in rows.itertuples():
        try:
            image = square(open_image(row.path, at_least=PHOTO), PHOTO, "crop")
        except ImageError:
            continue
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=QUALITY)
        text, _ = result.caption(row)
        found.append(
            {"source": data_url(stream.getvalue(), "jpeg"), "alt": text, "text": f"{text} ({Path(row.path).name})"}
        )
    return found


def _table(result: Result) -> dict[str, Any]:
    """Each class or number with its figures."""
    heads, rows = result.texts("–")
    return {"heads": heads, "rows": rows} | ABOUT_TABLE[result.task]


def _calibration(evaluation: Evaluation) -> dict[str, str]:
    """The reliability diagram (Guo et al., 2017) of the network's own probabilities, and what it says in words."""
    from matplotlib.figure import Figure

    sure, right = evaluation.predictions["probability"].to_numpy(), evaluation.predictions["correct"].to_numpy(float)
    places = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(places, minlength=BINS)
    there = count > 0
    stated, seen = (np.bincount(places, values, BINS)[there] / count[there] for values in (sure, right))
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5)
    axes.scatter(stated, seen, s=30 + 500 * count[there] / count.sum(), color=ACCENT, alpha=0.75, clip_on=False)
    axes.set(xlabel="how sure it was", ylabel="how often it was right", xlim=(0, 1.02), ylim=(0, 1.04))
    axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110)
    truth = np.array([evaluation.vocab.index(label) for label in evaluation.predictions["label"]])
    error = calibration_error(evaluation.probabilities, truth)
    text = (
        f"Dots on the line would be probabilities that hold; the larger, the more images. Before calibration, its "
        f"probabilities are off by {100 * error:.1f} points on average; with {evaluation.n:,} images some is chance."
    )
    return {"picture": data_url(stream.getvalue(), "png"), "text": text}


def _recipe(recipe: Recipe) -> list[dict[str, Any]]:
    usual = {one.name: one.default for one in fields(Recipe)}
    values = {name: "–" if value is None else value for name, value in recipe.to_json().items()}
    return [
        {"name": name, "value": value, "told": getattr(recipe, name) != usual[name]} for name, value in values.items()
    ]


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested values as (name, text), one below the other; long lists are cut."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{name} ")
        elif isinstance(value, list) and len(value) > 5:
            rows.append((f"{before}{name}", f"{len(value)} of them; see recipe.json"))
        elif value not in (None, [], ""):
            rows.append((f"{before}{name}", str(value)))
    return rows
