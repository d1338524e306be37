"""Make the table of images from a folder, a CSV file, a DataFrame or a named data set.

table("pets/images", label=pattern(r"^(.*)_[0-9]+"))     # a DataFrame: path, label, split, group, sha256

Files left out are listed with the reason as {"path", "reason"} in `table.attrs["left_out"]`.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.datasets import NAMED
from kit.data.images import list_images
from kit.data.labels import LabelRule, Targets, find_column, label_rule, parent_folder, read_with
from kit.data.scan import FileFacts, Scan, scan_images
from kit.data.splits import assign_splits, join_groups
from kit.errors import DataError, did_you_mean, some_of
from kit.manifest import FROM_TABLE
from kit.recipe import UNLABELLED, Recipe, label_name
from kit.tasks.training import training_of

SPLIT_FOLDERS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid"}
SPLIT_FOLDERS |= {"test": "test"}
PATH_COLUMNS = ("path", "file", "filename", "fname", "image", "name")
CLASSES = Targets()
SKIP = 'or leave them out: --unlabelled skip, unlabelled="skip"'

LeftOut = list[dict[str, str]]
COLUMNS = ["path", "label", "split", "group", "sha256"]
MAX_BROKEN_SHARE = 0.2
TABLE_FIELDS = ("label", "labels", "split", "valid", "seed", "follow_links", "unlabelled")


def listed(
    source: str | Path | pd.DataFrame,
    label: str | Callable[[Any], Any] = "folder",
    labels: str | Path | None = None,
    follow_links: bool = False,
    unlabelled: str = "error",
    targets: Targets = CLASSES,
) -> tuple[pd.DataFrame, LeftOut]:
    """Rows of path, label, split ('' where none is given) and group, and the files left out; see `data.survey`."""
    if isinstance(source, pd.DataFrame):
        return _from_frame(source, Path(), "the DataFrame", unlabelled, targets)
    folder = find_folder(source)
    if labels is not None:
        return _from_frame(_read_csv(Path(labels)), folder, str(labels), unlabelled, targets)
    if targets.columns:
        problem = f"there is no table with the columns {', '.join(targets.columns)}"
        raise DataError(problem, fix="say where it is: --labels FILE")
    images, others = list_images(folder, follow_links)
    left_out = [{"path": str(path), "reason": reason} for path, reason in others]
    rows, nameless = _from_paths(images, folder, label, left_out, unlabelled, targets)
    return rows, left_out + nameless


def find_folder(source: str | Path) -> Path:
    """The folder of `source`: a path, or the name of a data set, which is downloaded if needed."""
    folder = Path(source).expanduser().absolute()
    if folder.is_dir():
        return folder
    if str(source) in NAMED:
        return NAMED[str(source)]()
    what = "is a file, not a folder" if folder.is_file() else "is not there"
    hint = did_you_mean(str(source), NAMED)
    names = ", ".join(NAMED)
    raise DataError(f"{source} {what}.{hint}", fix=f"give a folder of images, or a named data set: {names}")


def empty_folders(folder: Path) -> list[str]:
    """Folders without any file, possibly classes that are still to be filled; relative to `folder`, sorted."""
    found = [Path(where).relative_to(folder) for where, *inside in os.walk(folder) if not any(inside)]
    return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))


def _from_paths(
    paths: Sequence[Path], folder: Path, label: Any, others: LeftOut, unlabelled: str, targets: Targets
) -> tuple[pd.DataFrame, LeftOut]:
    if not paths:
        reasons = "; ".join(sorted({entry["reason"] for entry in others})[:3])
        fix = "give the folder above the images; their names end in .jpg, .png, .webp, ..."
        raise DataError(
            f"{folder} holds no images, and {len(others)} other files{reasons and f' ({reasons})'}", fix=fix
        )
    rule = label_rule(label)
    loose = [path.name for path in paths if path.parent == folder]
    if rule is parent_folder and loose:
        fix = 'put each image into the folder of its class, or say --label is_cat or a pattern like "^(.*)_[0-9]+"'
        raise DataError(f"{len(loose)} images are in {folder} itself, not in a class folder: {some_of(loose)}", fix=fix)
    found, nameless = _labels_of(paths, read_with(rule, targets), unlabelled)
    levels = 3 if rule is parent_folder else 2
    splits = [_split_of(path.relative_to(folder), levels) for path in found]
    columns = {"path": [str(path) for path in found], "label": list(found.values()), "split": splits, "group": ""}
    return _named(pd.DataFrame(columns), targets, []), nameless


def _labels_of(paths: Sequence[Path], rule: LabelRule, unlabelled: str) -> tuple[dict[Path, str], LeftOut]:
    """A label for each path, and the paths without one; `DataError` with some of them where they are an error."""
    labels, failed = {}, {}
    for path in paths:
        try:
            labels[path] = rule(path)
        except DataError as error:
            failed[path] = error
    if failed and (unlabelled == "error" or not labels):
        errors = list(failed.values())
        problem = f"{len(failed)} of {len(paths)} files have no label: {some_of([error.problem for error in errors])}"
        raise DataError(problem, fix=f"{errors[0].fix}; {SKIP}" if labels else errors[0].fix)
    return labels, [{"path": str(path), "reason": "no label"} for path in failed]


def _split_of(path: Path, levels: int) -> str:
    """The split that the first folder of a relative path names, or ''. levels: the least number of parts of the path,
    so that a class may be called "test"."""
    return SPLIT_FOLDERS.get(path.parts[0].lower(), "") if len(path.parts) >= levels else ""


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV file as text: UTF-8, with or without a byte order mark."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"{path} is not UTF-8 (byte {error.start} cannot be read)"
        raise DataError(problem, fix="save it as UTF-8; in Excel: Save as, CSV UTF-8") from error
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} cannot be read as CSV ({error})", fix="save it as a UTF-8 CSV file") from error


def _named(rows: pd.DataFrame, targets: Targets, columns: list[str]) -> pd.DataFrame:
    """Rows with the task and the names of regression's numbers in `attrs`."""
    rows.attrs |= {"task": targets.task, "names": targets.names(columns)}
    return rows


def _from_frame(
    frame: pd.DataFrame, folder: Path, name: str, unlabelled: str, targets: Targets
) -> tuple[pd.DataFrame, LeftOut]:
    """Rows from a table with labels, whose paths are relative to `folder`."""
    path_column = find_column(frame, PATH_COLUMNS, name)
    labels, columns = targets.of_frame(frame, name)
    rows = pd.DataFrame({"path": [str((folder / str(path)).absolute()) for path in frame[path_column]]})
    rows["label"] = pd.Series(labels, index=rows.index, dtype=object)
    for column in ("split", "group"):
        rows[column] = frame[column].fillna("").astype(str).str.strip().tolist() if column in frame else ""
    missing = ~rows["path"].map(lambda path: Path(path).is_file())
    fix = f"paths in {name} count from {folder.resolve()}; correct them or remove the rows"
    gone = _left_out(
        rows[missing], len(rows), unlabelled, (f"files of {name} are not there", fix, "there is no such file")
    )
    empty = ~missing & rows["label"].isna()
    gone += _left_out(
        rows[empty], len(rows), unlabelled, (f"rows of {name} have no label", "fill or remove them", "no label")
    )
    rows = rows[~missing & ~empty].reset_index(drop=True)
    repeated = rows["path"][rows["path"].duplicated()].tolist()
    if repeated:
        raise DataError(f"{name} names files more than once: {some_of(repeated)}", fix="keep one row a file")
    return _named(_checked_splits(rows, name), targets, columns), gone


def _left_out(rows: pd.DataFrame, total: int, unlabelled: str, words: tuple[str, str, str]) -> LeftOut:
    """Path and reason of unusable rows where they may be left out; else `DataError`.

    words: the problem and the fix for the error, and the short reason.
    """
    wrong, fix, reason = words
    paths = rows["path"].tolist()
    if paths and (unlabelled == "error" or len(paths) == total):
        raise DataError(f"{len(paths)} of {total} {wrong}: {some_of(paths)}", fix=f"{fix}; {SKIP}")
    return [{"path": path, "reason": reason} for path in paths]


def _checked_splits(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    rows["split"] = [SPLIT_FOLDERS.get(split.lower(), split) for split in rows["split"]]
    unknown = sorted(set(rows["split"]) - {"", "train", "valid", "test", "out"})
    if unknown:
        problem = f"{name} has unknown splits: {', '.join(unknown)}"
        raise DataError(problem, fix="use train, valid, test, or leave empty")
    return rows


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
    if len(broken) > MAX_BROKEN_SHARE * len(rows):
        names = some_of([f"{Path(entry['path']).name}: {entry['reason']}" for entry in broken])
        problem = f"{len(broken)} of {len(rows)} images cannot be opened: {names}"
        raise DataError(problem, fix=f"repair or remove them; up to {MAX_BROKEN_SHARE:.0%} are left out without asking")
    return rows[good].reset_index(drop=True), broken
