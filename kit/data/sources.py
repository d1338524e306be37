"""From what people have (a folder, a CSV file, a DataFrame, a named data set) to one table of images.

table("pets/images", label=pattern(r"^(.*)_[0-9]+"))     # a DataFrame: path, label, split, group, sha256
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.datasets import NAMED
from kit.data.images import list_images
from kit.data.labels import LabelRule, label_rule, parent_folder
from kit.data.scan import FileFacts, scan_images
from kit.data.splits import assign_splits, join_groups
from kit.errors import DataError, did_you_mean, some_of
from kit.manifest import FROM_TABLE
from kit.recipe import label_name

COLUMNS = ["path", "label", "split", "group", "sha256"]
SPLIT_FOLDERS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid"}
SPLIT_FOLDERS |= {"test": "test"}
PATH_COLUMNS = ("path", "file", "filename", "fname", "image", "name")
LABEL_COLUMNS = ("label", "class", "category", "target")
MOST_BROKEN = 0.2


def table(
    source: str | Path | pd.DataFrame,
    *,
    label: str | Callable[[Any], Any] = "folder",
    labels: str | Path | None = None,
    split: str = "stratified",
    valid: float = 0.2,
    seed: int = 42,
) -> pd.DataFrame:
    """One row an image: path, label, split ("train", "valid", "test" or "out"), group, sha256.

    source: a folder (searched in depth), a DataFrame with the columns path and label, or the name of a data set.
    label: how a file says its label (see `label_rule`); labels: a CSV that says it instead, with paths from `source`.
    Folders named train, valid (or val) and test, and a column `split`, are kept as given. Exact and near duplicates
    share a group, and no group straddles a split. Files that cannot be opened are left out; `table.attrs` lists them
    ("left_out": {"path", "reason"} each), and tells the "split" and the "label" rule that were followed. Raises
    `DataError` where the labels or the files do not make a data set.
    """
    return survey(source, label=label, labels=labels, split=split, valid=valid, seed=seed)[COLUMNS]


def survey(
    source: str | Path | pd.DataFrame,
    *,
    label: str | Callable[[Any], Any] = "folder",
    labels: str | Path | None = None,
    split: str = "stratified",
    valid: float = 0.2,
    seed: int = 42,
) -> pd.DataFrame:
    """The same table with what each image looks like: width and height (pixels), light and spread (mean and standard
    deviation of the grey levels, 0 to 255), sharpness (see `FileFacts`)."""
    rows, skipped = _listed(source, label, labels)
    given = "valid" in set(rows["split"])
    scan = scan_images([Path(path) for path in rows["path"]])
    rows, broken = _without_broken(rows, scan.facts)
    rows["sha256"] = [fact.sha256 for fact in scan.good]
    rows["group"] = join_groups(rows["group"].tolist(), scan.duplicates())
    rows["split"] = assign_splits(rows, split, valid, seed)
    rows = rows[COLUMNS]
    rows[["width", "height"]] = [(fact.width, fact.height) for fact in scan.good]
    rows["light"], rows["spread"] = scan.light()
    rows["sharpness"] = [fact.sharpness for fact in scan.good]
    rows.attrs = {"left_out": skipped + broken, "split": "given" if given else split}
    rows.attrs["label"] = FROM_TABLE if labels is not None or isinstance(source, pd.DataFrame) else label_name(label)
    return rows


def labelled_images(
    source: str | Path | pd.DataFrame, *, label: str | Callable[[Any], Any] = "folder", labels: str | Path | None = None
) -> pd.DataFrame:
    """All images of a source with their labels (path, label, split and group as given), unread and unsplit."""
    return _listed(source, label, labels)[0]


def _listed(source: str | Path | pd.DataFrame, label: Any, labels: str | Path | None) -> tuple[pd.DataFrame, list]:
    """Rows of path, label, split, group from any source, and the files beside them that are no images."""
    if isinstance(source, pd.DataFrame):
        return _from_frame(source, Path(), "the DataFrame"), []
    folder = find_folder(source)
    if labels is not None:
        return _from_frame(_read_csv(Path(labels)), folder, str(labels)), []
    images, others = list_images(folder)
    rows = _from_paths(images, folder, label, len(others))
    return rows, [{"path": str(path), "reason": reason} for path, reason in others]


def find_folder(source: str | Path) -> Path:
    """The folder that `source` names: a path, or one of kit's named data sets (fetched if need be)."""
    folder = Path(source).expanduser().absolute()
    if folder.is_dir():
        return folder
    if str(source) in NAMED:
        return NAMED[str(source)]()
    what = "is a file, not a folder" if folder.is_file() else "is not there"
    hint = did_you_mean(str(source), NAMED)
    names = ", ".join(NAMED)
    raise DataError(f"{source} {what}.{hint}", fix=f"give a folder of images, or a named data set: {names}")


def _from_paths(paths: Sequence[Path], folder: Path, label: Any, others: int) -> pd.DataFrame:
    if not paths:
        fix = "give the folder above the images; their names end in .jpg, .png, .webp, ..."
        raise DataError(f"{folder} holds no images, and {others} other files", fix=fix)
    rule = label_rule(label)
    loose = [path.name for path in paths if path.parent == folder]
    if rule is parent_folder and loose:
        fix = 'put each image into the folder of its class, or say --label is_cat or a pattern like "^(.*)_[0-9]+"'
        raise DataError(f"{len(loose)} images lie in {folder} itself, in no class folder: {some_of(loose)}", fix=fix)
    levels = 3 if rule is parent_folder else 2
    splits = [_split_of(path.relative_to(folder), levels) for path in paths]
    columns = {"path": [str(path) for path in paths], "label": _labels_of(paths, rule), "split": splits, "group": ""}
    return pd.DataFrame(columns)


def _labels_of(paths: Sequence[Path], rule: LabelRule) -> list[str]:
    """A label for each path; those that have none are counted, and the first five named."""
    labels, failed = [], []
    for path in paths:
        try:
            labels.append(rule(path))
        except DataError as error:
            failed.append(error)
    if failed:
        problem = f"{len(failed)} of {len(paths)} files have no label: {some_of([error.problem for error in failed])}"
        raise DataError(problem, fix=failed[0].fix)
    return labels


def _split_of(path: Path, levels: int) -> str:
    """The split that the first folder of a relative path names, or ''; a class may be called "test" too."""
    return SPLIT_FOLDERS.get(path.parts[0].lower(), "") if len(path.parts) >= levels else ""


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} cannot be read as CSV ({error})", fix="save it as a UTF-8 CSV file") from error


def _from_frame(frame: pd.DataFrame, folder: Path, name: str) -> pd.DataFrame:
    """Rows from a table that says the labels; its paths count from `folder`."""
    path_column, label_column = (_column(frame, known, name) for known in (PATH_COLUMNS, LABEL_COLUMNS))
    paths = [(folder / str(path)).absolute() for path in frame[path_column]]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        fix = f"paths in {name} count from {folder.resolve()}; correct them or remove the rows"
        raise DataError(f"{len(missing)} of {len(paths)} files of {name} are not there: {some_of(missing)}", fix=fix)
    labels = [str(label).strip() if pd.notna(label) else "" for label in frame[label_column]]
    empty = [str(path) for path, label in zip(paths, labels, strict=True) if not label]
    if empty:
        raise DataError(f"{len(empty)} rows of {name} have no label: {some_of(empty)}", fix="fill or remove them")
    rows = pd.DataFrame({"path": [str(path) for path in paths], "label": labels, "split": "", "group": ""})
    repeated = rows["path"][rows["path"].duplicated()].tolist()
    if repeated:
        raise DataError(f"{name} names files more than once: {some_of(repeated)}", fix="keep one row a file")
    for column in ("split", "group"):
        if column in frame:
            rows[column] = frame[column].fillna("").astype(str).str.strip().tolist()
    return _checked_splits(rows, name)


def _column(frame: pd.DataFrame, known: Sequence[str], name: str) -> str:
    for name_wanted in known:
        for column in frame.columns:
            if str(column).lower() == name_wanted:
                return column
    has = ", ".join(map(str, frame.columns))
    raise DataError(f"{name} has no column {known[0]!r}; it has: {has}", fix=f"name a column one of {', '.join(known)}")


def _checked_splits(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    rows["split"] = [SPLIT_FOLDERS.get(split.lower(), split) for split in rows["split"]]
    unknown = sorted(set(rows["split"]) - {"", "train", "valid", "test", "out"})
    if unknown:
        raise DataError(
            f"{name} has unknown splits: {', '.join(unknown)}", fix="use train, valid, test, or leave empty"
        )
    return rows


def _without_broken(rows: pd.DataFrame, facts: list[FileFacts]) -> tuple[pd.DataFrame, list[dict]]:
    """Leave out the files that cannot be opened; stop where they are so many that something else is wrong."""
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
