"""What `kit clean` and `kit label` do, as functions.

clean("photos")                                   # a page; decisions go to photos-labels.csv
find_issues("photos")                             # the findings as a list of dictionaries
"""

import json
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit import data
from kit.clean.decisions import Decisions, Journal
from kit.clean.findings import KINDS, as_rows
from kit.clean.labelling import start_labelling
from kit.clean.moves import Moves, planned_moves
from kit.clean.session import Session, start
from kit.console import say
from kit.data.sources import find_folder
from kit.errors import DataError
from kit.recipe import Recipe
from kit.runs import command

TABLE, RECIPE = "table.csv", "recipe.json"


def clean(
    source: str | Path, recipe: Recipe, csv: Path | None = None, *, port: int = 7861, browser: bool = True
) -> None:
    """Look for wrong labels, copies and odd images of a folder or a run, and serve the page for decisions.

    csv: where the decisions go, by default FOLDER-labels.csv here; FOLDER-labels.jsonl beside it has each of them.
    Returns after Ctrl-C. Raises `KitError` where there are no labelled images, or the CSV is open in another process.
    """
    with Journal(csv or default_csv(source)) as journal:
        _serve(_session(source, recipe, journal), port, browser)


def label(
    folder: str | Path,
    recipe: Recipe,
    classes: list[str],
    like: Path | None = None,
    csv: Path | None = None,
    *,
    port: int = 7861,
    browser: bool = True,
) -> None:
    """Serve the page to label the images of a folder, those first that tell the most; see `start_labelling`."""
    with Journal(csv or default_csv(folder)) as journal:
        _serve(start_labelling(folder, recipe, journal, classes, like), port, browser)


def find_issues(source: str | Path, recipe: Recipe | None = None) -> list[dict[str, Any]]:
    """The findings about the images of a folder or a run: path, label, kind, score, reason, suggestion, similar."""
    session = _session(source, recipe or Recipe(), Decisions())
    broken = [
        {"path": one["path"], "label": "", "kind": "broken", "score": 1.0, "reason": one["reason"]}
        for one in session.broken
    ]
    return as_rows(session.findings, session.table) + broken


def default_csv(source: str | Path) -> Path:
    """FOLDER-labels.csv in the current folder."""
    return Path(f"{Path(str(source)).resolve().name}-labels.csv")


def moves_of(source: str | Path, csv: Path, recipe: Recipe) -> Moves:
    """The moves of files that the decisions in `csv` ask for."""
    return planned_moves(find_folder(source), csv, by_folder=recipe.label == "folder" and recipe.labels is None)


def _serve(session: Session, port: int, browser: bool) -> None:
    from kit.clean.page import serve

    session.save()
    say("\n".join(_lines(session)))

    def announce(address: str) -> None:
        print(f"ready: {address} (stop with Ctrl-C)", flush=True)
        if browser:
            webbrowser.open(address)

    serve(session, port, announce)
    decided = len(session.decided_rows())
    say(f"{decided} decisions are in {session.journal.csv}")
    if decided:
        recipe = replace(session.recipe, labels=str(session.journal.csv), label="folder")
        say(f"train with them: {command(session.folder, recipe)}")


def _lines(session: Session) -> list[str]:
    counts = pd.Series([one.kind for one in session.findings], dtype=object).value_counts()
    names = KINDS | session.kinds
    found = [f"  {counts[kind]} {names[kind]}" for kind in names if kind in counts]
    return [f"{len(session.table)} images:", *(found or ["  nothing found"])]


def _session(source: str | Path, recipe: Recipe, journal: Decisions) -> Session:
    folder = Path(source)
    if not (folder / TABLE).is_file():
        return start(source, recipe, journal)
    saved = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    recipe = replace(Recipe.from_json(saved["recipe"]), arch=saved["chosen"]["arch"], labels=None, label="folder")
    rows = pd.read_csv(folder / TABLE, dtype=str, keep_default_na=False)[["path", "label", "split", "group"]]
    if not len(rows):
        raise DataError(f"{folder / TABLE} has no rows", fix="give a finished run")
    table = data.survey(rows, **data.table_args(recipe))
    home = Path(saved["chosen"].get("source") or "")
    return start(home if home.is_dir() else Path(rows["path"][0]).parent, recipe, journal, table)
