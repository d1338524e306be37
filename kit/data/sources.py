"""Make the table of images from a folder, a CSV file, a DataFrame or a named data set.

table("pets/images", label=pattern(r"^(.*)_[0-9]+"))     # a DataFrame: path, label, split, group, sha256
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.listing import CLASSES, empty_folders, find_folder, listed
from kit.data.scan import FileFacts, Scan, scan_images
from kit.data.splits import assign_splits, join_groups
from kit.data.targets import Targets
from kit.errors import DataError, some_of
from kit.manifest import FROM_TABLE
from kit.recipe import UNLABELLED, Recipe, label_name
from kit.tasks.training import training_of

COLUMNS = ["path", "label", "split", "group", "sha256"]
MOST_BROKEN = 0.2
TABLE_FIELDS = ("label", "labels", "split", "valid", "seed", "follow_links", "unlabelled")


def table_args(recipe: Recipe) -> dict[str, Any]:
    """The arguments of `table` and `survey` that a recipe's fields give."""
    return {name: getattr(recipe, name) for name in TABLE_FIELDS} | {"targets": targets_of(recipe)}


def targets_of(recipe: Recipe) -> Targets:
    """How labels are read, from a recipe's fields."""
    return Targets(recipe.task, recipe.delimiter, tuple(recipe.target_names()))


def table(source: str | Path | pd.DataFrame, **how: Any) -> pd.DataFrame:
    """A row for each image: path, label, split ("train", "valid", "test" or "out"), group, sha256.

    how: the arguments of `survey` (label, labels, split, valid, seed, follow_links, unlabelled, targets).
    """
    return survey(source, **how)[COLUMNS]


def survey(
    source: str | Path | pd.DataFrame,
    *,
    label: str | Callable[[Any], Any] = "folder",
    labels: str | Path | None = None,
    split: str = "stratified",
    valid: float = 0.2,
    seed: int = 42,
    follow_links: bool = False,
    unlabelled: str = "error",
    targets: Targets = CLASSES,
) -> pd.DataFrame:
    """The table of a source with image quality: path, label, split, group, sha256; width and height in pixels; light
    and spread, mean and standard deviation of the grey levels (0 to 255); sharpness (`FileFacts`).

    source: a folder (with its subfolders), a DataFrame with the columns path and label, or the name of a data set.
    label: the label rule for files (see `label_rule`). labels: a CSV with the labels instead; its paths are relative to
    `source`. Splits given by folders named train, valid (or val) and test, or by a column `split`, are kept. Exact and
    near duplicates get the same group, and no group is divided between splits. follow_links: use links to files outside
    of the folder. targets: how labels are read (`Targets`); a label is one class, or classes or numbers joined by ";".
    unlabelled: for files without label and rows without file: "error" or "skip". `table.attrs` has "left_out", all
    files that are not in the table, also unreadable ones ({"path", "reason"} each); the rules for "split" and "label";
    the "task"; the "names" of numbers; and "empty", folders without files. Raises `DataError` where labels or files do
    not make a data set.
    """
    if unlabelled not in UNLABELLED:
        raise DataError(f"unlabelled={unlabelled!r} is not known", fix=f"one of: {', '.join(UNLABELLED)}")
    rows, skipped = listed(source, label, labels, follow_links, unlabelled, targets)
    facts = rows.attrs
    given = "valid" in set(rows["split"])
    scan = scan_images(rows["path"].tolist())
    rows, broken = _without_broken(rows, scan.facts)
    rows["sha256"] = [fact.sha256 for fact in scan.good]
    rows["group"] = join_groups(rows["group"].tolist(), scan.duplicates())
    strata = training_of(targets.task).strata(rows["label"])
    rows["split"] = assign_splits(rows.assign(label=strata), split, valid, seed)
    rows = _with_quality(rows[COLUMNS], scan)
    rows.attrs = facts | {"left_out": skipped + broken, "split": "given" if given else split}
    rows.attrs["label"] = FROM_TABLE if labels is not None or isinstance(source, pd.DataFrame) else label_name(label)
    rows.attrs["empty"] = empty_folders(find_folder(source)) if rows.attrs["label"] == "folder" else []
    return rows


def _with_quality(rows: pd.DataFrame, scan: Scan) -> pd.DataFrame:
    rows[["width", "height"]] = [(fact.width, fact.height) for fact in scan.good]
    rows[["light", "spread"]] = scan.light
    rows["sharpness"] = [fact.sharpness for fact in scan.good]
    return rows


def labelled_images(
    source: str | Path | pd.DataFrame,
    *,
    label: str | Callable[[Any], Any] = "folder",
    labels: str | Path | None = None,
    targets: Targets = CLASSES,
) -> pd.DataFrame:
    """All images of a source with their labels (path, label, split and group as given), without opening them."""
    return listed(source, label, labels, targets=targets)[0]


def _without_broken(rows: pd.DataFrame, facts: list[FileFacts]) -> tuple[pd.DataFrame, list[dict]]:
    """Leave out files that cannot be opened; `DataError` where they are more than 20 %."""
    good = [fact.problem is None for fact in facts]
    broken = [
        {"path": path, "reason": fact.problem}
        for path, fact in zip(rows["path"], facts, strict=True)
        if fact.problem is not None
    ]
    if len(broken) > MOST_BROKEN * len(rows):
        names = some_of([f"{Path(entry['path']).name}: {entry['reason']}" for entry in broken])
        problem = f"{len(broken)} of {len(rows)} images cannot be opened: {names}"
        raise DataError(problem, fix=f"repair or remove them; up to {MOST_BROKEN:.0%} are left out without asking")
    return rows[good].reset_index(drop=True), broken
