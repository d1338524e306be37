"""report.html: one file about a run that a person would rather look at; it asks nothing of any network.

write_report(Report(evaluation, ...), Path("report.html"))

The words and the looks are in report.html beside this module (Jinja2, which escapes every text); here the numbers and
pictures are made ready for it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
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
from kit.files import write_text
from kit.recipe import Recipe

HERE = Path(__file__).parent
PHOTO, QUALITY = 176, 72
MOST_RIGHT, MOST_WRONG, MOST_BEHIND, MOST_WORST = 3, 8, 300, 12
MOST_LEVEL, SHORT = 4, 3
BINS = 10
ACCENT, LINE = "#0f766e", "#c9d4d1"


@dataclass(frozen=True)
class Report:
    """What a report tells. chosen: as in recipe.json; curves: a PNG file; command: the one that makes the run again;
    notes: further lines about the result; findings: of the look before training."""

    evaluation: Evaluation
    recipe: Recipe
    chosen: Mapping[str, Any]
    curves: Path
    command: str
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = field(default_factory=list)


def write_report(report: Report, path: Path) -> None:
    """Write the report as one HTML file."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The report as the text of one HTML file."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True)
    vocab, evaluation = report.evaluation.vocab, report.evaluation
    classes = " or ".join(vocab) if len(vocab) <= 3 else f"{len(vocab)} classes"
    return environment.get_template("report.html").render(
        title=classes,
        subtitle=f"{report.recipe.arch}, from {report.recipe.weights} weights, {report.recipe.epochs} epochs",
        rate=_rate(evaluation),
        notes=report.notes,
        matrix=_matrix(evaluation),
        worst=_photos(evaluation.top_losses(MOST_WORST)),
        classes=_classes(evaluation),
        curves=data_url(report.curves.read_bytes(), "png"),
        calibration=_calibration(evaluation),
        findings=report.findings,
        command=report.command,
        recipe=_recipe(report.recipe),
        chosen=_flat(report.chosen),
    )


def data_url(data: bytes, kind: str) -> str:
    """A picture inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _rate(evaluation: Evaluation) -> dict[str, str]:
    rate = evaluation.error_rate
    top = min(1.0, max(0.05, 1.25 * rate.high))
    wrong = int((~evaluation.predictions["correct"]).sum())
    sentence = (
        f"Wrong on {wrong:,} of {rate.n:,} images that it was not trained on. The true rate lies between "
        f"{100 * rate.low:.1f} % and {100 * rate.high:.1f} % (95 % interval)."
    )
    places = {"low_at": rate.low / top, "high_at": rate.high / top, "at": rate.value / top}
    shown = {"value": f"{100 * rate.value:.1f} %", "top": f"{100 * top:.0f} %", "sentence": sentence}
    return shown | {name: f"{place:.4f}" for name, place in places.items()}


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
        photos = _photos(rows.nlargest(most, "probability"))
        left -= len(photos)
        counted = _cell(vocab, true, said, len(rows), int((table["label"] == vocab[true]).sum()))
        behind.append({"id": counted["id"], "title": counted["title"], "photos": photos})
    return behind


def _photos(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Small pictures with what they are and what they were taken for; a file that is gone meanwhile is left out."""
    found = []
    for row in rows.itertuples():
        try:
            image = square(open_image(row.path, at_least=PHOTO), PHOTO, "crop")
        except ImageError:
            continue
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=QUALITY)
        said = f"{row.prediction} {row.probability:.0%}"
        text = said if row.correct else f"{said}, is {row.label}"
        found.append(
            {"source": data_url(stream.getvalue(), "jpeg"), "alt": text, "text": f"{text} ({Path(row.path).name})"}
        )
    return found


def _classes(evaluation: Evaluation) -> list[dict[str, str]]:
    def shown(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:.3f}"

    return [
        {"name": name, "n": f"{row.n:.0f}"} | {key: shown(getattr(row, key)) for key in ("precision", "recall", "f1")}
        for name, row in zip(evaluation.per_class.index, evaluation.per_class.itertuples(), strict=True)
    ]


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
