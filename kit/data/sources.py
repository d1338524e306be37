"""Make the table of images from a folder, a CSV file, a DataFrame or a named data set.

table("pets/images", label=pattern(r"^(.*)_[0-9]+"))     # a DataFrame: path, label, split, group, sha256

Files left out are listed with the reason as {"path", "reason"} in `table.attrs["left_out"]`.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.datasets import NAMED
from kit.data.folders import split_name, splits_by_folder
from kit.data.images import looks_like_image
from kit.data.labels import LabelRule, Targets, cells, find_column, label_rule, maybe_column, read_with
from kit.data.listing import list_images
from kit.data.scan import FileFacts, Scan, scan_images
from kit.data.splits import assign_splits, join_groups
from kit.errors import DataError, did_you_mean, some_of
from kit.files import CLAIMED
from kit.manifest import FROM_TABLE
from kit.recipe import UNLABELLED, Recipe, label_name
from kit.tasks.text import readable
from kit.tasks.training import NO, YES, training_of

SPLITS = ("train", "valid", "test", "out")
PATH_COLUMNS = ("path", "filepath", "imagepath", "imgpath", "file", "filename", "fname", "image", "imagefile")
PATH_COLUMNS += ("imagename", "imageid", "img", "photo", "picture", "name", "id")
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "fold")
ABOVE_HEADER = re.compile(r"((#.*|sep=.|[,;\t| ]*)(\r\n?|\n))*")
FLAG_COLUMNS = {"istrain": ("valid", "train"), "isvalid": ("train", "valid"), "istest": ("", "test")}
"""Columns of yes and no: the splits of the images with no, and with yes."""
CLASSES = Targets()
SKIP = 'or leave them out: --unlabelled skip, unlabelled="skip"'

LeftOut = list[dict[str, str]]
COLUMNS = ["path", "label", "split", "group", "sha256"]
MAX_BROKEN_SHARE = 0.2
TABLE_FIELDS = ("label", "labels", "split", "valid", "seed", "follow_links", "unlabelled")


def labelled_images(
    source: str | Path | pd.DataFrame,
    label: str | Callable[[Any], Any] = "folder",
    labels: str | Path | None = None,
    follow_links: bool = False,
    unlabelled: str = "error",
    targets: Targets = CLASSES,
) -> pd.DataFrame:
    """All images of a source with their labels, without opening them; see `survey`.

    Columns: path, label, split ('' where none is given) and group; `attrs` has "left_out", the rule for "label", the
    "task", the "names" of numbers, the split "folders", and the "nested" class folders of `FolderSplits`.
    """
    if isinstance(source, pd.DataFrame):
        rows, left_out = _from_frame(source, [Path()], "the DataFrame", unlabelled, targets)
    elif labels is not None:
        folders = [find_folder(source), Path(labels).absolute().parent]
        rows, left_out = _from_frame(_read_csv(Path(labels)), folders, str(labels), unlabelled, targets)
    elif targets.columns:
        problem = f"there is no table with the columns {', '.join(targets.columns)}"
        raise DataError(problem, fix="say where it is: --labels FILE")
    else:
        rows, left_out = _from_folder(find_folder(source), label, follow_links, unlabelled, targets)
    from_table = labels is not None or isinstance(source, pd.DataFrame)
    rows.attrs |= {"left_out": left_out, "label": FROM_TABLE if from_table else label_name(label)}
    return rows


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


def _from_folder(
    folder: Path, label: Any, follow_links: bool, unlabelled: str, targets: Targets
) -> tuple[pd.DataFrame, LeftOut]:
    paths, others = list_images(folder, follow_links)
    if not paths:
        reasons = "; ".join(sorted({reason for _, reason in others})[:3])
        problem = f"{folder} holds no images, and {len(others)} other files{reasons and f' ({reasons})'}"
        raise DataError(problem, fix="give the folder above the images; their names end in .jpg, .png, .webp, ...")
    rule = label_rule(label)
    given = splits_by_folder(paths, folder, rule)
    others = [other for other in others if other[0] not in CLAIMED] + [*given.left_out.items()]
    used = [path for path in paths if path not in given.left_out]
    labels, nameless = _labels_of(used, read_with(rule, targets), unlabelled)
    splits = [given.splits.get(path, "") for path in labels]
    rows = _rows([str(path) for path in labels], list(labels.values())).assign(split=splits, group="")
    rows = _named(rows, targets, [])
    rows.attrs["folders"] = {str(path.relative_to(folder)): split for path, split in given.folders.items()}
    rows.attrs["nested"] = {str(base): str(path.relative_to(base)) for base, path in given.nested.items()}
    return rows, [{"path": str(path), "reason": reason} for path, reason in others] + nameless


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


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV file as text; the index has the line numbers. UTF-8, or UTF-16 with a byte order mark.

    Cells are separated by commas, semicolons, tabs or bars, whichever the first line has most of. Above it, lines that
    begin with # are left out, and Excel's "sep=;". Raises `DataError` where a line has more cells than the first one,
    or a quote does not end.
    """
    text = _text_of(path)
    start = ABOVE_HEADER.match(text).end()
    above, text = len(text[:start].splitlines()), text[start:]
    first = re.sub(r'"[^"]*"', "", next(iter(text.splitlines()), ""))
    delimiter = max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        lines = [(above + reader.line_num, [*map(str.strip, row)]) for row in reader]
    except csv.Error as error:
        problem = f"{path}, line {above + reader.line_num}, cannot be read as CSV ({error})"
        raise DataError(problem, fix='close each quote; a quote inside of quotes is written ""') from error
    if not lines:
        raise DataError(f"{path} is empty", fix="write the line path,label into it, and a line for each image")
    header = lines[0][1]
    if wide := [f"line {number}" for number, row in lines if any(row[len(header) :])]:
        problem = f"{len(wide)} lines of {path} have more cells than its first line: {some_of(wide)}"
        raise DataError(problem, fix=f"put quotes around a cell that holds a {delimiter!r}")
    rows = {number: [*row, *[""] * len(header)][: len(header)] for number, row in lines[1:] if any(row)}
    return pd.DataFrame(list(rows.values()), columns=header, index=list(rows), dtype=object)


def _text_of(path: Path) -> str:
    """The text of a CSV file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", fix="give a CSV file: --labels FILE") from error
    try:
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        problem = "it holds zero bytes" if "\0" in text else None
    except UnicodeDecodeError as error:
        problem = "it is an Excel or zip file" if content.startswith(b"PK") else f"it is not UTF-8 (byte {error.start})"
    if problem:
        fix = "save it as UTF-8; in Excel: Save as, CSV UTF-8"
        raise DataError(f"{path} cannot be read as CSV: {problem}", fix=fix)
    return text


def _rows(paths: Sequence[str], labels: Sequence[str | None]) -> pd.DataFrame:
    """Rows of path and label. As objects, because pyarrow holds no name that is not UTF-8."""
    return pd.DataFrame({"path": paths, "label": labels}, dtype=object)


def _named(rows: pd.DataFrame, targets: Targets, columns: list[str]) -> pd.DataFrame:
    """Rows with readable labels (`kit.tasks.text.readable`); in `attrs` the task, the names of regression's numbers,
    and "spellings", the classes whose names came in several Unicode forms."""
    training, labels = training_of(targets.task), rows["label"].tolist()
    spellings = Counter(readable(name) for name in training.count(labels))
    rows["label"] = [label if readable(label) == label else training.of_text(readable(label)) for label in labels]
    rows.attrs |= {"task": targets.task, "names": targets.names(columns)}
    rows.attrs["spellings"] = sorted(name for name, count in spellings.items() if count > 1)
    return rows


def _from_frame(
    frame: pd.DataFrame, folders: list[Path], name: str, unlabelled: str, targets: Targets
) -> tuple[pd.DataFrame, LeftOut]:
    """Rows from a table with labels, whose paths are relative to the first of `folders` that has the file."""
    if frame.empty:
        raise DataError(f"{name} has no rows", fix="give a row for each image, with the columns path and label")
    if frame.index.name not in (None, *frame.columns):
        frame = frame.reset_index()
    if any(looks_like_image(Path(str(column))) for column in frame.columns):
        fix = "write path,label above it, or what its columns are"
        raise DataError(f"{name} has no header: it begins with {', '.join(map(str, frame.columns))}", fix=fix)
    path_column = find_column(frame, PATH_COLUMNS, name)
    labels, columns = targets.of_frame(frame, name)
    paths = zip(cells(frame[path_column]), frame.index, strict=True)
    names = [path or f"(no path in row {row})" for path, row in paths]
    rows = _rows(find_files(names, folders), labels)
    rows["split"], unused = _given_splits(frame, name)
    rows["group"] = cells(frame["group"]) if "group" in frame else ""
    missing = ~rows["path"].map(_is_file)
    fix = f"paths in {name} count from {folders[0].resolve()}; correct them or remove the rows"
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
    rows.attrs["unused"] = unused
    return _named(rows, targets, columns), gone


def _is_file(path: str | Path) -> bool:
    """Whether there is such a file; False for a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises OSError then)


def find_files(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The absolute path of each file that a table names: in the first of `folders` that has it.

    A name may have another Unicode form than on disk, backslashes, or no suffix where one image alone fits. Where there
    is no file: the path in the first folder.
    """

    @cache
    def inside(folder: Path) -> dict[str, str]:
        """The names in a folder, by how a table may write them."""
        found = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 (names, not paths)
        images = [name for name in found if looks_like_image(Path(name))]
        stems = Counter(readable(Path(name).stem) for name in images)
        short = {readable(Path(name).stem): name for name in images if stems[readable(Path(name).stem)] == 1}
        return short | {readable(name): name for name in found}

    @cache
    def on_disk(path: Path) -> Path:
        """The path as the names on disk are written."""
        if os.path.exists(path) or path.parent == path:  # noqa: PTH110 (False for a name that is too long)
            return path
        return on_disk(path.parent) / inside(on_disk(path.parent)).get(readable(path.name), path.name)

    def find(name: str) -> str:
        places = [(folder / text).absolute() for text in (name, name.replace("\\", "/")) for folder in folders]
        return str(next((path for path in map(on_disk, places) if _is_file(path)), places[0]))

    return [find(name) for name in names]


def _given_splits(frame: pd.DataFrame, name: str) -> tuple[list[str], list[str]]:
    """The split of each row, '' where none is given: from a column of splits, or from columns of yes and no.

    A column `split` must hold splits; others, such as `fold`, may mean something else: also returns those.
    """
    unused = []
    for known in SPLIT_COLUMNS:
        column = maybe_column(frame, [known], name)
        splits = [] if column is None else [_split_of(cell) for cell in cells(frame[column])]
        unknown = sorted(set(splits) - {"", *SPLITS})
        if unknown and known == "split":
            problem = f"{name} has unknown splits: {', '.join(unknown)}"
            raise DataError(problem, fix="use train, valid, test, or leave empty")
        if any(splits) and not unknown:
            return splits, []
        unused += [str(column)] if unknown else []
    splits = [""] * len(frame)
    for flag, sides in FLAG_COLUMNS.items():
        column = maybe_column(frame, [flag], name)
        for row, cell in enumerate([] if column is None else cells(frame[column])):
            if cell.lower() not in {"", *YES, *NO}:
                problem = f"{name}, row {frame.index[row]}: {column} is {cell!r}"
                raise DataError(problem, fix="write 1 for yes, and 0 for no")
            splits[row] = (cell and sides[cell.lower() in YES]) or splits[row]
    return splits, unused


def _left_out(rows: pd.DataFrame, total: int, unlabelled: str, words: tuple[str, str, str]) -> LeftOut:
    """Path and reason of unusable rows where they may be left out; else `DataError`.

    words: the problem and the fix for the error, and the short reason.
    """
    wrong, fix, reason = words
    paths = rows["path"].tolist()
    if paths and (unlabelled == "error" or len(paths) == total):
        raise DataError(f"{len(paths)} of {total} {wrong}: {some_of(paths)}", fix=f"{fix}; {SKIP}")
    return [{"path": path, "reason": reason} for path in paths]


def _split_of(cell: str) -> str:
    """The split that a cell names, else the cell."""
    split, more = split_name(cell)
    return cell if more else split or cell


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
    `source`. Splits given by folders (`splits_by_folder`) or by a column `split` are kept. Exact and near duplicates
    get the same group, and no group is divided between splits. follow_links: use links to files outside of the folder.
    targets: how labels are read (`Targets`); a label is one class, or classes or numbers joined by ";".
    unlabelled: for files without label and rows without file: "error" or "skip". `table.attrs` has "left_out", all
    files that are not in the table, also unreadable ones ({"path", "reason"} each, and "label" where it is known); the
    rule for "split"; and the `attrs` of `labelled_images`. Raises `DataError` where labels or files do not make a data
    set.
    """
    if unlabelled not in UNLABELLED:
        raise DataError(f"unlabelled={unlabelled!r} is not known", fix=f"one of: {', '.join(UNLABELLED)}")
    rows = labelled_images(source, label, labels, follow_links, unlabelled, targets)
    return scanned(rows, split, valid, seed, targets)[0]


def scanned(
    rows: pd.DataFrame, split: str, valid: float, seed: int, targets: Targets = CLASSES
) -> tuple[pd.DataFrame, Scan]:
    """The table of `survey` for rows of `labelled_images`, and the scan of their files. The good files of the scan are
    the rows of the table, in the same order."""
    facts = rows.attrs
    given = "valid" in set(rows["split"])
    scan = scan_images(rows["path"].tolist())
    rows, broken = _without_broken(rows, scan.facts, targets)
    rows["sha256"] = [fact.sha256 for fact in scan.good]
    rows["group"] = join_groups(rows["group"].tolist(), scan.duplicates())
    strata = training_of(targets.task).strata(rows["label"])
    rows["split"] = assign_splits(rows.assign(label=strata), split, valid, seed)
    rows = _with_quality(rows[COLUMNS], scan)
    rows.attrs = facts | {"left_out": facts["left_out"] + broken, "split": "given" if given else split}
    return rows, scan


def _with_quality(rows: pd.DataFrame, scan: Scan) -> pd.DataFrame:
    rows[["width", "height"]] = [(fact.width, fact.height) for fact in scan.good]
    rows[["light", "spread"]] = scan.light
    rows["sharpness"] = [fact.sharpness for fact in scan.good]
    return rows


def _without_broken(rows: pd.DataFrame, facts: list[FileFacts], targets: Targets) -> tuple[pd.DataFrame, LeftOut]:
    """Leave out files that cannot be opened; `DataError` where they are more than 20 %."""
    good = [fact.problem is None for fact in facts]
    broken = [
        {"path": path, "reason": fact.problem, "label": label}
        for path, label, fact in zip(rows["path"], rows["label"], facts, strict=True)
        if fact.problem is not None
    ]
    if len(broken) > MAX_BROKEN_SHARE * len(rows):
        count = training_of(targets.task).count
        lost = sorted(set(count([entry["label"] for entry in broken])) - set(count(rows["label"][good])))
        among = f", among them all of {some_of(lost)}" if lost else ""
        names = some_of([f"{Path(entry['path']).name}: {entry['reason']}" for entry in broken])
        problem = f"{len(broken)} of {len(rows)} images cannot be opened{among}: {names}"
        raise DataError(problem, fix=f"repair or remove them; up to {MAX_BROKEN_SHARE:.0%} are left out without asking")
    return rows[good].reset_index(drop=True), broken
