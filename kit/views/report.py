"""report.html: one file about a run, with all pictures inside; it loads nothing from a network.

write_report(Report(evaluation, ...), Path("report.html"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.data.audit import Finding
from kit.evaluate.result import Result
from kit.features.embedding import positions
from kit.files import write_text
from kit.recipe import Recipe
from kit.views.pictures import Photo, as_url, photos_of
from kit.views.render import render_template
from kit.views.view import View, view_of_result

PHOTO, MOST_RIGHT, MOST_WRONG, MOST_BEHIND, MOST_WORST = 176, 3, 8, 300, 12
FEWEST_ON_MAP, MOST_COLOURS = 10, 10


@dataclass(frozen=True)
class Report:
    """The contents of a report.

    chosen: as in recipe.json. overview, curves: PNG files; no curves for several trainings. command: repeats the run.
    shown: the result with the photos and probabilities to show, by default `result`. findings: of the checks before
    training. notes: further lines about the result.
    """

    result: Result
    recipe: Recipe
    chosen: Mapping[str, Any]
    overview: Path
    command: str
    curves: Path | None = None
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = field(default_factory=list)
    shown: Result | None = None


def write_report(report: Report, path: Path) -> None:
    """Write the report as one HTML file."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The report as the text of one HTML file."""
    view, usual = view_of_result(report.result), {one.name: one.default for one in fields(Recipe)}
    values = report.recipe.to_json()
    return render_template(
        "report.html",
        view=view,
        report=report,
        subtitle=_subtitle(report.recipe, report.chosen),
        overview=as_url(report.overview.read_bytes(), "png"),
        curves=report.curves and as_url(report.curves.read_bytes(), "png"),
        behind=_behind(report.shown or report.result, view),
        worst=photos_of((report.shown or report.result).top_losses(MOST_WORST).to_dict("records"), view, PHOTO),
        calibration=report.result.reliability(),
        map=_map(report.result),
        recipe={name: (values[name], getattr(report.recipe, name) != usual[name]) for name in values},
        chosen=pd.json_normalize(dict(report.chosen), sep=" ").to_dict("records")[0],
    )


def _map(result: Result) -> dict[str, Any] | None:
    """The map of the images whose features stay with the result: dots, and the names of up to 10 colours."""
    if len(result.features) < FEWEST_ON_MAP:
        return None
    rows = result.predictions[result.predictions["path"].isin(list(result.features))]
    places = positions(np.stack([result.features[path] for path in rows["path"]]))
    names = sorted(set(rows["label"]))
    names = names if len(names) <= MOST_COLOURS else []
    dots = [
        {
            "x": float(x),
            "y": float(y),
            "colour": names.index(row["label"]) if names else 0,
            "wrong": not row.get("correct", True),
            "title": f"{Path(row['path']).name}: {row['label']}, predicted {row['prediction']}",
        }
        for (x, y), row in zip(places, rows.to_dict("records"), strict=True)
    ]
    return {"dots": dots, "names": names, "wrong": any(dot["wrong"] for dot in dots)}


def _subtitle(recipe: Recipe, chosen: Mapping[str, Any]) -> str:
    """The network, its weights and what was trained, in a few words."""
    start = "a random start" if recipe.weights == "none" else f"{recipe.weights} weights"
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    if chosen.get("layers", {}).get("kept") == "head":
        epochs = "the head alone is trained"
    folds = f", {chosen['folds']} folds" if chosen.get("folds") else ""
    return f"{chosen.get('arch', recipe.arch)}, from {start}, {epochs}{folds}"


def _behind(result: Result, view: View) -> dict[tuple[str, str], list[Photo]]:
    """The photos for each cell (true, predicted) of the confusion matrix, likeliest first; at most 300 in all."""
    shown, behind, left = {row.name for row in view.matrix.rows} if view.matrix else set(), {}, MOST_BEHIND
    cells = {cell: rows for cell, rows in result.predictions.groupby(["label", "prediction"]) if shown.issuperset(cell)}
    for label, prediction in sorted(cells, key=lambda cell: cell[0] == cell[1]):
        most = min(left, MOST_RIGHT if label == prediction else MOST_WRONG)
        surest = cells[label, prediction].nlargest(most, "probability")
        behind[label, prediction] = photos_of(surest.to_dict("records"), view, PHOTO)
        left -= len(behind[label, prediction])
    return behind
