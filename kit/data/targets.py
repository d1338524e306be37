"""From what a file or a row of a table says to the label text of its task.

Targets("multilabel", delimiter=" ").of_text("dog cat")           # 'cat;dog'
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.errors import DataError, did_you_mean, some_of
from kit.task import CLASSIFICATION, SEPARATOR
from kit.tasks.training import training_of

LABEL_COLUMNS = ("label", "labels", "class", "category", "tags", "target", "value")


@dataclass(frozen=True)
class Targets:
    """How labels are read: the task, what stands between several classes, and the columns that hold them, if named."""

    task: str = CLASSIFICATION
    delimiter: str = SEPARATOR
    columns: tuple[str, ...] = ()

    def of_text(self, text: str) -> str:
        """The label text of what a label rule or the column label says. Raises `DataError` where it says none."""
        return training_of(self.task).of_text(text, self.delimiter)

    def of_frame(self, frame: pd.DataFrame, name: str) -> tuple[list[str | None], list[str]]:
        """The label text of each row, None for rows without one, and the names of the columns that were read.

        name: of the table, for errors. Raises `DataError` for columns that are not there and cells that are no label.
        """
        columns = [_named(frame, column, name) for column in self.columns] or [find_column(frame, LABEL_COLUMNS, name)]
        cells = [["" if pd.isna(cell) else str(cell).strip() for cell in frame[column]] for column in columns]
        rows = list(zip(*cells, strict=True))
        training = training_of(self.task)
        labels, wrong = [], []
        for number, row in enumerate(rows, 2):
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
