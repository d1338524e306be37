"""Labels: rules that give the label of a file, and reading of label texts and columns by task.

label_rule("is_cat")(Path("Birman_12.jpg"))                       # 'cat': by folder, by pattern, or by a function
label_rule("^(.*)_[0-9]+")(Path("beagle_7.jpg"))                  # 'beagle'
Targets("multilabel", delimiter=" ").of_text("dog cat")           # 'cat;dog'
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import DataError, did_you_mean, some_of
from kit.tasks.text import CLASSIFICATION, SEPARATOR, readable
from kit.tasks.training import NO, YES, training_of

if TYPE_CHECKING:  # `kit.is_cat` does not import pandas
    import pandas as pd

LabelRule = Callable[[Path], str]
LABEL_COLUMNS = ("label", "labels", "class", "classes", "classname", "category", "tags", "target", "diagnosis", "breed")
LABEL_COLUMNS += ("species", "value")
EMPTY = ("nan", "<na>")  # as pandas writes missing values


def is_cat(path: str | Path) -> bool:
    """Oxford Pets' convention: a cat's file name starts with a capital letter. (As a label: "cat" or "dog".)"""
    return Path(path).name[:1].isupper()


def parent_folder(path: str | Path) -> str:
    """The name of the folder that the file lies in."""
    return Path(path).parent.name


# The names of these rules in a recipe and in a bundle.
is_cat.label_name = "is_cat"
parent_folder.label_name = "folder"


@dataclass(frozen=True)
class Pattern:
    """A label rule: the group of a regular expression, searched in the file name, or in the path if it has a '/'."""

    expression: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.expression).groups
        except re.error as error:
            raise DataError(f"label pattern {self.expression!r}: {error}", fix="see Python's re module") from error
        if groups != 1:
            problem = f"label pattern {self.expression!r} has {groups} groups; exactly one was expected"
            raise DataError(problem, fix="put parentheses around the label, like '^(.*)_[0-9]+'")

    def __call__(self, path: str | Path) -> str:
        """The label of `path`; `DataError` where the pattern does not match."""
        where = readable(Path(path).as_posix() if "/" in self.expression else Path(path).name)
        found = re.search(readable(self.expression), where)
        if not found:
            raise DataError(f"{where} does not match {self.expression!r}", fix="widen the pattern or rename the file")
        return found.group(1)

    @property
    def label_name(self) -> str:
        """The rule in a recipe: the expression."""
        return self.expression


def pattern(expression: str) -> Pattern:
    """The label rule of a regular expression with one group; like fastai's `RegexLabeller`, with a name for recipes."""
    return Pattern(expression)


def label_rule(label: str | Callable[[Any], Any]) -> LabelRule:
    """The function from path to label text for a recipe's `label`.

    label: "folder", "is_cat", "module:function", a pattern with one group, or a function of the path. The result of a
        function is converted to text (True to "True"), except for a list of classes. A function that raises or returns
        None gives a `DataError`.
    """
    if label == "folder" or label is parent_folder:
        return parent_folder
    if label == "is_cat" or label is is_cat:
        return lambda path: "cat" if is_cat(path) else "dog"
    if not isinstance(label, str):
        return _text_of(label)
    return label_rule(_imported(label)) if is_function_name(label) else _text_of(Pattern(label))


def is_function_name(label: str) -> bool:
    """Whether `label` names a function to import, like "module:function"."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[\w.<>]+", label) is not None


def _text_of(function: Callable[[Any], Any]) -> LabelRule:
    def rule(path: Path) -> str:
        try:
            label = function(path)
        except DataError:
            raise
        except Exception as error:
            problem = f"the label function failed on {path.name} ({type(error).__name__}: {error})"
            raise DataError(problem, fix="return a label for every file") from error
        if label is None or label == "":
            raise DataError(f"the label rule gave {label!r} for {path.name}", fix="give a label to every file")
        return list(label) if isinstance(label, list | tuple | set | frozenset) else str(label)

    return rule


def _imported(name: str) -> Callable[[Any], Any]:
    module, function = name.split(":")
    try:
        return attrgetter(function)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        problem = f"the label function {name!r} cannot be imported ({error})"
        raise DataError(problem, fix="give another --label, or run where that module can be imported") from error


@dataclass(frozen=True)
class Targets:
    """How labels are read: the task, the separator between classes, and the columns that hold the labels, if named."""

    task: str = CLASSIFICATION
    delimiter: str = SEPARATOR
    columns: tuple[str, ...] = ()

    def of_text(self, text: str) -> str:
        """The label text from the result of a label rule or from a cell. Raises `DataError` for an invalid one."""
        return training_of(self.task).of_text(text, self.delimiter)

    def of_frame(self, frame: "pd.DataFrame", name: str) -> tuple[list[str | None], list[str]]:
        """The label text of each row, None for rows without one, and the names of the columns that were read.

        name: of the table, for errors. Raises `DataError` for missing columns and invalid cells.
        """
        columns = [_named(frame, column, name) for column in self.columns] or [find_column(frame, LABEL_COLUMNS, name)]
        rows = list(zip(*(cells(frame[column]) for column in columns), strict=True))
        training = training_of(self.task)
        labels, wrong = [], []
        for number, row in zip(frame.index, rows, strict=True):
            try:
                labels.append(training.of_cells(row, self.columns, self.delimiter))
            except DataError as error:
                wrong.append((f"row {number}: {error.problem}", error.fix))
        if wrong:
            problem = (
                f"{len(wrong)} of {len(rows)} labels of {name} cannot be read: {some_of([text for text, _ in wrong])}"
            )
            raise DataError(problem, fix=wrong[0][1])
        return labels, [str(column).strip() for column in columns]

    def names(self, columns: Sequence[str]) -> list[str]:
        """The names of regression's numbers: the columns that hold them; a label rule's number is "value"."""
        return training_of(self.task).names(self.columns or columns)


def read_with(rule: Callable[[Path], str], targets: Targets) -> Callable[[Path], str]:
    """The label rule `rule`, with its result read by the task of `targets`."""

    def label(path: Path) -> str:
        text = rule(path)
        try:
            return targets.of_text(text)
        except DataError as error:
            raise DataError(f"{path.name}: {error.problem}", fix=error.fix) from error

    return label


def cells(column: "pd.Series") -> list[str | list]:
    """The cells of a column as text without spaces around it, "" for missing values; lists of classes as lists.

    Numbers without fraction, as missing values make them of integers, are written without ".0".
    """
    import pandas as pd

    values = [list(cell) if pd.api.types.is_list_like(cell) else "" if pd.isna(cell) else cell for cell in column]
    values = [cell if isinstance(cell, list) else str(cell).strip() for cell in values]
    values = ["" if isinstance(cell, str) and cell.lower() in EMPTY else cell for cell in values]
    if all(isinstance(cell, str) and re.fullmatch(r"(-?\d+(\.0)?)?", cell) for cell in values):
        values = [cell.removesuffix(".0") for cell in values]
    return values


def maybe_column(frame: "pd.DataFrame", known: Sequence[str], name: str) -> Any:
    """The column that has the first possible one of the `known` names, or None; case, spaces, `_` and `-` do not count.

    Raises `DataError` where two columns have that name.
    """
    names = [re.sub(r"[\s_-]+", "", str(column)).lower() for column in frame.columns]
    wanted = next((wanted for wanted in known if wanted in names), None)
    if names.count(wanted) > 1:
        raise DataError(f"{name} has {names.count(wanted)} columns {wanted!r}", fix="remove or rename all but one")
    return None if wanted is None else frame.columns[names.index(wanted)]


def find_column(frame: "pd.DataFrame", known: Sequence[str], name: str) -> Any:
    """`maybe_column`, or `DataError` where there is none."""
    column = maybe_column(frame, known, name)
    if column is None:
        fix = f"name a column one of {', '.join(known)}"
        if known is LABEL_COLUMNS:
            flags = [str(one) for one in frame.columns if {*map(str.lower, map(str, cells(frame[one])))} <= YES | NO]
            fix += f"; or say which hold the labels: --targets {','.join(flags) if len(flags) > 1 else 'COLUMN'}"
        raise DataError(f"{name} has no column {known[0]!r}; it has: {', '.join(map(str, frame.columns))}", fix=fix)
    return column


def _named(frame: "pd.DataFrame", wanted: str, name: str) -> Any:
    names = [readable(str(column).strip()) for column in frame.columns]
    if names.count(readable(wanted)) == 1:
        return frame.columns[names.index(readable(wanted))]
    count = "several columns" if readable(wanted) in names else "no column"
    raise DataError(f"{name} has {count} {wanted!r}.{did_you_mean(wanted, names)}", fix=f"one of: {', '.join(names)}")
