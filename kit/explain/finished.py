"""A finished run as its folder says: recipe, table of images, history, and what was chosen for the user.

read_finished(Path("runs/photos")).chosen["steps"]
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.scan import CHANGED, changes
from kit.errors import DataError, some_of
from kit.manifest import find_bundle, read_config
from kit.recipe import Recipe
from kit.tasks.text import REGRESSION
from kit.unfinished import run_state


@dataclass(frozen=True)
class Finished:
    """A finished run. recipe: with the network and the number of workers that were chosen. chosen: as in recipe.json.

    table: as the run used it: path, label, split, group, sha256. history: history.csv.
    """

    folder: Path
    recipe: Recipe
    chosen: dict[str, Any]
    table: pd.DataFrame
    history: pd.DataFrame

    @property
    def kept(self) -> str:
        """What was trained at last: "head" (from features) or "whole"."""
        return (self.chosen.get("layers") or {"kept": "whole"})["kept"]


def read_finished(folder: Path) -> Finished:
    """The run in a folder. Raises `DataError` where there is none, where it is not finished, or is several trainings,
    and where images are missing or are not those of the run."""
    state = run_state(folder) if folder.is_dir() else None
    if state is None or state.state == "running" or not (folder / "history.csv").is_file():
        what = "is still running" if state else "is no run folder: it holds no result.json"
        what = "holds several trainings (--folds), not one" if (folder / "result.json").is_file() and state else what
        raise DataError(f"{folder} {what}", fix="give the folder of one finished run; kit runs lists them")
    saved = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    chosen = saved["chosen"]
    if chosen.get("halvings"):
        problem = f"{folder} ran out of memory and halved its batch, which is not replayed"
        raise DataError(problem, fix="train again with a smaller --batch, then explain that run")
    recipe = Recipe.from_json(saved["recipe"])
    size = chosen.get("size", recipe.size)  # runs of earlier versions have a number in the recipe
    recipe = replace(recipe, arch=chosen["arch"], size=size, workers=chosen["workers"], device=chosen["device"])
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    table["path"] = [str(Path(chosen["folder"], path)) for path in table["path"]]
    if recipe.task == REGRESSION:
        table.attrs["names"] = read_config(find_bundle(folder))["vocab"]
    _check_images(folder, table)
    return Finished(folder, recipe, chosen, table, pd.read_csv(folder / "history.csv"))


def _check_images(folder: Path, table: pd.DataFrame) -> None:
    used = table[table["split"].isin(["train", "valid"])]
    found = changes(used["path"].tolist(), used["sha256"].tolist())
    gone = [path for path, change in found.items() if change != CHANGED]
    if gone:
        problem = f"{len(gone)} of the {len(used)} images that {folder} was trained on are gone: {some_of(gone)}"
        raise DataError(problem, fix="put them back where they were")
    if found:
        problem = f"{len(found)} images are not those that {folder} was trained on: {some_of(list(found))}"
        raise DataError(problem, fix="restore them, or train again and explain that run")
