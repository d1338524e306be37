"""From what a file or a row of a table says to the label text of its task; and what a split keeps evenly spread.

Targets("multilabel", delimiter=" ").of_text("dog cat")           # 'cat;dog'
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.errors import DataError, did_you_mean, some_of
from kit.task import (
    CLASSIFICATION,
    MULTILABEL,
    REGRESSION,
    SEPARATOR,
    classes_of,
    join_classes,
    join_numbers,
    numbers_of,
)

LABEL_COLUMNS = ("label", "labels", "class", "category", "tags", "target", "value")
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
ALONE = "value"
MOST_STRATA, FEWEST_A_STRATUM = 10, 10


@dataclass(frozen=True)
class Targets:
    """How labels are read: the task, what stands between several classes, and the columns that hold them, if named."""

    task: str = CLASSIFICATION
    delimiter: str = SEPARATOR
    columns: tuple[str, ...] = ()

    def of_text(self, text: str) -> str:
        """The label text of what a label rule or the column label says. Raises `DataError` where it says none."""
        text = text.strip()
        if self.task == REGRESSION:
            return join_numbers([_number(text)])
        if self.task == CLASSIFICATION:
            return text
        names = [name.strip() for name in text.split(self.delimiter)]
        if self.delimiter != SEPARATOR and any(SEPARATOR in name for name in names):
            fix = f"name it without {SEPARATOR!r}, which separates classes in tables and answers"
            raise DataError(f"the class {text!r} holds a {SEPARATOR!r}", fix=fix)
        return join_classes(name for name in names if name)

    def of_frame(self, frame: pd.DataFrame, name: str) -> tuple[list[str | None], list[str]]:
        """The label text of each row, None for rows without one, and the names of the columns that were read.

        name: of the table, for errors. Raises `DataError` for columns that are not there and cells that are no label.
        """
        columns = [_named(frame, column, name) for column in self.columns] or [find_column(frame, LABEL_COLUMNS, name)]
        cells = [["" if pd.isna(cell) else str(cell).strip() for cell in frame[column]] for column in columns]
        rows = list(zip(*cells, strict=True))
        read = self._of_flags if self.columns and self.task == MULTILABEL else self._of_cells
        labels, wrong = [], []
        for number, row in enumerate(rows, 2):
            try:
                labels.append(read(row))
            except DataError as error:
                wrong.append((f"row {number}: {error.problem}", error.fix))
        if wrong:
            problem = (
                f"{len(wrong)} of {len(rows)} labels of {name} cannot be read: {some_of([text for text, _ in wrong])}"
            )
            raise DataError(problem, fix=wrong[0][1])
        return labels, [str(column).strip() for column in columns]

    def _of_cells(self, row: Sequence[str]) -> str | None:
        if self.task == MULTILABEL:
            return self.of_text(row[0])
        if not all(row):
            return None
        return row[0] if self.task == CLASSIFICATION else join_numbers(map(_number, row))

    def _of_flags(self, row: Sequence[str]) -> str | None:
        if not all(row):
            return None
        for cell, column in zip(row, self.columns, strict=True):
            if cell.lower() not in YES | NO:
                raise DataError(f"{column} is {cell!r}", fix="write 1 where the image has the class, and 0 where not")
        return join_classes(column for cell, column in zip(row, self.columns, strict=True) if cell.lower() in YES)

    def names(self, columns: Sequence[str]) -> list[str]:
        """What regression's numbers are called: the columns that hold them; a label rule's number is "value"."""
        return list(self.columns or columns or [ALONE]) if self.task == REGRESSION else []


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        fix = "write numbers with a point, like 41.5, or say --task classification"
        raise DataError(f"{text!r} is no number", fix=fix)
    return number


def read_with(rule: Callable[[Path], str], targets: Targets) -> Callable[[Path], str]:
    """A label rule whose text is read as the task wants it."""

    def label(path: Path) -> str:
        text = rule(path)
        try:
            return targets.of_text(text)
        except DataError as error:
            raise DataError(f"{path.name}: {error.problem}", fix=error.fix) from error

    return label


def find_column(frame: pd.DataFrame, known: Sequence[str], name: str) -> str:
    """The column that is called by one of the `known` names, in whatever case. Raises `DataError`."""
    for wanted in known:
        for column in frame.columns:
            if str(column).strip().lower() == wanted:
                return column
    has = ", ".join(map(str, frame.columns))
    raise DataError(f"{name} has no column {known[0]!r}; it has: {has}", fix=f"name a column one of {', '.join(known)}")


def _named(frame: pd.DataFrame, wanted: str, name: str) -> str:
    for column in frame.columns:
        if str(column).strip() == wanted:
            return column
    hint = did_you_mean(wanted, map(str, frame.columns))
    raise DataError(f"{name} has no column {wanted!r}.{hint}", fix=f"one of: {', '.join(map(str, frame.columns))}")


def classes_in(labels: Sequence[str], task: str) -> Counter[str]:
    """How many images have each class; regression has none."""
    if task == REGRESSION:
        return Counter()
    return Counter(name for label in labels for name in (classes_of(label) if task == MULTILABEL else [label]))


def strata(labels: Sequence[str], task: str, fewest: int = 1) -> list[str]:
    """What a stratified split spreads evenly: a name for each label text.

    Of one class that class; of several the rarest of all, so that rare ones are on both sides; of numbers the tenth
    (or less, of few images) of the first number's order that an image lies in. Of several classes, names that fewer
    than `fewest` images have become one.
    """
    if task == MULTILABEL:
        counts = classes_in(labels, task)
        rarest = [min(classes_of(label), key=lambda name: (counts[name], name), default="") for label in labels]
        return _joined(rarest, fewest)
    if task == REGRESSION:
        first = np.array([numbers_of(label)[0] for label in labels])
        parts = max(1, min(MOST_STRATA, len(first) // FEWEST_A_STRATUM))
        return [f"{place:02}" for place in np.searchsorted(np.sort(first), first) * parts // max(1, len(first))]
    return list(labels)


def _joined(names: list[str], fewest: int) -> list[str]:
    """Small strata as one, and that one joined to the largest if it is small itself."""
    counts = Counter(names)
    names = [name if counts[name] >= fewest else "" for name in names]
    counts = Counter(names)
    largest = max(counts, key=lambda name: (counts[name], name), default="")
    return [largest if name == "" and counts[""] < fewest else name for name in names]
