"""What `kit clean` and `kit label` do, as functions.

clean("photos")                                   # a page; decisions go to photos-labels.csv
find_issues("photos")                             # the findings as a list of dictionaries
"""

import json
import os
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket
from typing import Any

import pandas as pd

from kit.clean.decisions import Decisions, Journal
from kit.clean.findings import KINDS, as_rows
from kit.clean.labelling import start_labelling
from kit.clean.moves import Moves, moves_back, planned_moves
from kit.clean.session import Session, start
from kit.console import say
from kit.data.sources import find_folder
from kit.errors import DataError
from kit.recipe import Recipe
from kit.runs import command
from kit.tasks.text import REGRESSION, SEPARATOR

TABLE, RECIPE = "table.csv", "recipe.json"


def clean(
    source: str | Path, recipe: Recipe, csv: Path | None = None, *, port: int = 7861, browser: bool = True
) -> None:
    """Look for wrong labels, copies and odd images of a folder or a run, and serve the page for decisions.

    csv: where the decisions go, by default FOLDER-labels.csv here; FOLDER-labels.jsonl beside it has each of them.
    Returns after Ctrl-C. Raises `KitError` where there are no labelled images, or the CSV is open in another process.
    """
    csv = csv or default_csv(source)
    if recipe.labels and csv.absolute() == Path(recipe.labels).absolute():
        fix = "leave out --labels, which the decisions correct already; or say another --out"
        raise DataError(f"{csv} is the file of labels and would be replaced", fix=fix)
    images = images_of(source, recipe)
    with Journal(csv, images.folder) as journal, _listen(port) as listener:
        _serve(_session(images, journal), listener, browser)


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
    folder = _folder(folder)
    with Journal(csv or default_csv(folder), folder) as journal, _listen(port) as listener:
        _serve(start_labelling(folder, recipe, journal, classes, like), listener, browser)


def find_issues(source: str | Path, recipe: Recipe | None = None) -> list[dict[str, Any]]:
    """The findings about the images of a folder or a run: path, label, kind, score, reason, suggestion, similar."""
    session = _session(images_of(source, recipe or Recipe()), Decisions())
    broken = [
        {"path": one["path"], "label": "", "kind": "broken", "score": 1.0, "reason": one["reason"]}
        for one in session.broken
    ]
    return as_rows(session.findings, session.table) + broken


def default_csv(source: str | Path) -> Path:
    """FOLDER-labels.csv in the current folder."""
    return Path(f"{Path(str(source)).resolve().name}-labels.csv")


def apply(source: str | Path, recipe: Recipe, csv: Path, sure: Callable[[], bool]) -> None:
    """Move files as decided in `csv`, if `sure` after the summary."""
    images = images_of(source, recipe)
    with _decided(csv, images.folder) as journal:
        _run(planned_moves(images.folder, journal, images.by_folder), sure)


def undo_apply(csv: Path, sure: Callable[[], bool]) -> None:
    """Move the files back that `apply` moved, if `sure` after the summary."""
    with _decided(csv) as journal:
        _run(moves_back(journal), sure)


def _decided(csv: Path, folder: str | Path = "") -> Journal:
    journal = Journal(csv, folder)
    if not journal.path.is_file():
        fix = "decide about images first: kit clean FOLDER; or give the same --out as then"
        raise DataError(f"there are no decisions in {journal.path}", fix=fix)
    return journal


def _run(moves: Moves, sure: Callable[[], bool]) -> None:
    say("\n".join(moves.lines()))
    if moves.moves and sure():
        say(moves.run())


def _listen(port: int) -> socket:
    from kit.clean.page import listen

    return listen(port)


def _serve(session: Session, listener: socket, browser: bool) -> None:
    from kit.clean.page import serve

    session.save()
    say("\n".join(_lines(session)))

    def announce(address: str) -> None:
        print(f"ready: {address} (stop with Ctrl-C)", flush=True)
        if browser:
            webbrowser.open(address)

    serve(session, listener, announce)
    decided = len(session.decided_rows())
    say(f"{decided} decisions are in {session.journal.csv}")
    if decided:
        say(f"train with them: {training_line(session)}")


def _lines(session: Session) -> list[str]:
    counts = pd.Series([one.kind for one in session.findings], dtype=object).value_counts()
    names = KINDS | session.kinds
    found = [f"  {counts[kind]} {names[kind]}" for kind in names if kind in counts]
    return [f"{len(session.table)} images:", *(found or ["  nothing found"])]


def training_line(session: Session) -> str:
    """The command that trains with the decisions."""
    return command(session.folder, replace(_as_written(session.recipe), labels=str(session.journal.csv)))


def _as_written(recipe: Recipe) -> Recipe:
    """A recipe for a table that kit wrote, whose labels are texts as of `kit.tasks.text`."""
    targets = recipe.targets if recipe.task == REGRESSION else None
    return replace(recipe, labels=None, label="folder", delimiter=SEPARATOR, targets=targets)


@dataclass(frozen=True)
class Images:
    """The images to look at: their folder, the recipe that reads them, whether labels are the names of folders, and the
    rows of a finished run."""

    folder: Path
    recipe: Recipe
    by_folder: bool
    rows: pd.DataFrame | None = None


def images_of(source: str | Path, recipe: Recipe) -> Images:
    """The images of a folder, with `recipe`, or of a run, with its own recipe. Raises `DataError`."""
    run = Path(source)
    if not (run / TABLE).is_file() or not (run / RECIPE).is_file():
        return Images(_folder(source), recipe, _by_folder(recipe))
    saved = json.loads((run / RECIPE).read_text(encoding="utf-8"))
    chosen, recipe = saved["chosen"], Recipe.from_json(saved["recipe"])
    rows = pd.read_csv(run / TABLE, dtype=str, keep_default_na=False)[["path", "label", "split", "group"]]
    if not len(rows):
        raise DataError(f"{run / TABLE} has no rows", fix="give a finished run")
    folder = Path(chosen.get("folder") or "", chosen.get("source") or "")
    if not chosen.get("source") or not folder.is_dir():  # a table, or a named data set
        folder = Path(os.path.commonpath([Path(path).parent for path in rows["path"]]))
    own, by_folder = replace(_as_written(recipe), arch=chosen["arch"]), _by_folder(recipe)
    for place, name in enumerate(own.target_names()):
        rows[name] = [label.split(SEPARATOR)[place] for label in rows["label"]]
    return Images(_folder(folder), own, by_folder, rows)


def _folder(source: str | Path) -> Path:
    return Path(os.path.normpath(find_folder(source)))


def _by_folder(recipe: Recipe) -> bool:
    return recipe.label == "folder" and recipe.labels is None


def _session(images: Images, journal: Decisions) -> Session:
    return start(images.folder, images.recipe, journal, images.rows)
