"""How each task is learned: what its labels say, and the targets, loss, metrics and linear head that follow from them.

training_of("multilabel").classes("cat;dog")          # ["cat", "dog"]

What needs torch or fastai is imported where it is used, and lies in `objectives.py`: looking at a folder needs neither.
"""

import math
from abc import ABC, abstractmethod
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from kit import scores
from kit.errors import DataError, some_of
from kit.tasks.solvers import Discriminant, Ridge, Sigmoids, Softmax, Solver
from kit.tasks.text import (
    CLASSIFICATION,
    MULTILABEL,
    REGRESSION,
    SEPARATOR,
    classes_of,
    join_classes,
    join_numbers,
    numbers_of,
)

YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
ALONE = "value"  # the name of the one number that a label rule finds
MOST_STRATA, FEWEST_A_STRATUM = 10, 10
MANY_NUMBERS = 20
MARGIN = 0.1  # beyond the numbers of the training images, as a share of their spread
SEPARATORS = (";", ",", "|", " ")


class TaskTraining(ABC):
    """What differs from task to task until a network is trained. A label is one text, as in the column of a table.

    solver: fits the linear head. quick_solver: another one, for many images. fewest_classes: with fewer of them there
    is nothing to learn; 0 for numbers.
    """

    solver: type[Solver]
    quick_solver: type[Solver]
    fewest_classes = 0

    @abstractmethod
    def of_text(self, text: str, delimiter: str = SEPARATOR) -> str:
        """The label in the answer of a label rule, or in a cell. Raises `DataError` where it is none."""

    def of_cells(self, cells: Sequence[str], columns: Sequence[str], delimiter: str) -> str | None:
        """The label in the cells of a row; None where one is empty. columns: their names, where the user named them."""
        return SEPARATOR.join(self.of_text(cell, delimiter) for cell in cells) if all(cells) else None

    def names(self, columns: Sequence[str]) -> list[str]:
        """The names of the numbers, from the columns that hold them; [] where there are classes."""
        return []

    def classes(self, label: str) -> list[str]:
        """The classes of a label."""
        return []

    def count(self, labels: Sequence[str]) -> Counter[str]:
        """How many images have each class."""
        return Counter(name for label in labels for name in self.classes(label))

    @abstractmethod
    def strata(self, labels: Sequence[str], fewest: int = 1) -> list[str]:
        """The stratum of each label: what a stratified split spreads evenly. Those of fewer than `fewest` images may be
        joined."""

    def findings(self, labels: Sequence[str], sizes: dict[str, int]) -> list[tuple[str, str]]:
        """(severity, text) of what is odd about the labels; sizes: how many images each class has."""
        return []

    @abstractmethod
    def targets(self, labels: Sequence[str], vocab: Sequence[str]) -> np.ndarray:
        """The labels for `solver`: class numbers (n,), 0 or 1 (n, classes), or numbers (n, targets)."""

    def ends(self, labels: Sequence[str], limits: tuple[float, float] | None) -> tuple[list[float], list[float]] | None:
        """The lowest and highest answer for each number, `limits` where given; None where there are classes."""
        return None

    def wrong(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
        """Which images the outputs of a head (n, outputs) get wrong: bool (n,); None of numbers, which are never quite
        right."""
        return None

    def mistakes(self, outputs: np.ndarray, targets: np.ndarray) -> int | None:
        """How many images the outputs of a head get wrong; None of numbers."""
        wrong = self.wrong(outputs, targets)
        return None if wrong is None else int(wrong.sum())

    def class_weights(self, labels: Sequence[str], vocab: Sequence[str]) -> list[float]:
        """A weight for each class, with which all classes count the same in the loss."""
        raise NotImplementedError

    @abstractmethod
    def block(self) -> Any:
        """fastai's block for the targets."""

    @abstractmethod
    def reader(self) -> Callable:
        """fastai's `get_y`: from a row of the table to what `block` takes."""

    @abstractmethod
    def loss(self, output_range: Any = None) -> Callable:
        """The loss of a Learner; output_range: of numbers."""

    def training_loss(self, weight: Any, smoothing: float) -> Callable:
        """The loss with the weights (classes,) of `class_weights`, or None, and with label smoothing."""
        raise NotImplementedError

    @abstractmethod
    def metrics(self, outputs: int) -> list[Callable]:
        """The metrics of a Learner with so many outputs."""


class ClassificationTraining(TaskTraining):
    """One class an image: cross entropy, and a softmax regression on features."""

    solver, quick_solver, fewest_classes = Softmax, Discriminant, 2

    def of_text(self, text: str, delimiter: str = SEPARATOR) -> str:
        """The class."""
        return _one(text).strip()

    def of_cells(self, cells: Sequence[str], columns: Sequence[str], delimiter: str) -> str | None:
        """The class in the one cell, or, of several columns, the one that says 1."""
        if len(columns) < 2 or not all(cells):
            return super().of_cells(cells, columns, delimiter)
        names = _columns_of_1(cells, columns)
        if len(names) != 1:
            fix = f"say 1 in one of them, or --task {MULTILABEL}"
            raise DataError(f"{len(names)} of the columns {', '.join(columns)} say 1", fix=fix)
        return names[0]

    def classes(self, label: str) -> list[str]:
        """The class."""
        return [label]

    def strata(self, labels: Sequence[str], fewest: int = 1) -> list[str]:
        """The classes."""
        return list(labels)

    def findings(self, labels: Sequence[str], sizes: dict[str, int]) -> list[tuple[str, str]]:
        """Class names that look like numbers, or like several names: another task may be meant."""
        if len(sizes) >= MANY_NUMBERS and all(map(_is_number, sizes)):
            text = f"the {len(sizes)} classes are numbers ({some_of(sorted(sizes))}): if they measure something, "
            return [("warning", f"{text}say --task {REGRESSION}")]
        for mark in SEPARATORS[:3]:
            both = [name for name in sizes if mark in name]
            if both and all(part.strip() in sizes for name in both for part in name.split(mark)):
                text = f"classes like {both[0]!r} are made of others: if an image can have several, say"
                option = f" --delimiter {mark!r}" if mark != SEPARATOR else ""
                return [("warning", f"{text} --task {MULTILABEL}{option}")]
        return []

    def targets(self, labels: Sequence[str], vocab: Sequence[str]) -> np.ndarray:
        """The number of each class: int (n,)."""
        return np.array([vocab.index(label) for label in labels])

    def wrong(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Which images get another class."""
        return outputs.argmax(1) != targets

    def class_weights(self, labels: Sequence[str], vocab: Sequence[str]) -> list[float]:
        """images / (classes x images of the class): 1 on average over the images."""
        counts = Counter(labels)
        return [len(labels) / (len(vocab) * max(1, counts[name])) for name in vocab]

    def block(self) -> Any:
        """A category."""
        from fastai.vision.all import CategoryBlock

        return CategoryBlock

    def reader(self) -> Callable:
        """The label."""
        from kit.tasks.objectives import image_label

        return image_label

    def loss(self, output_range: Any = None) -> Callable:
        """Cross entropy."""
        from fastai.vision.all import CrossEntropyLossFlat

        return CrossEntropyLossFlat()

    def training_loss(self, weight: Any, smoothing: float) -> Callable:
        """Cross entropy with weighted classes and smoothed labels."""
        from fastai.vision.all import CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat

        if smoothing:
            return LabelSmoothingCrossEntropyFlat(eps=smoothing, weight=weight)
        return CrossEntropyLossFlat(weight=weight)

    def metrics(self, outputs: int) -> list[Callable]:
        """Error rate and accuracy."""
        from fastai.vision.all import accuracy, error_rate

        return [error_rate, accuracy]


class MultiLabelTraining(TaskTraining):
    """Any number of classes an image: binary cross entropy, and a logistic regression for each class on features."""

    solver, quick_solver, fewest_classes = Sigmoids, Sigmoids, 1

    def of_text(self, text: str, delimiter: str = SEPARATOR) -> str:
        """The classes between delimiters, of a list, or of a list as Python and JSON write it; "" for none."""
        found = text
        if isinstance(text, str):
            with suppress(ValueError, SyntaxError):
                found = literal_eval(text) if text.startswith(("[", "(", "{")) else text
        found = found if isinstance(found, list | tuple | set) else text.split(delimiter)
        names = [str(name).strip() for name in found]
        if any(SEPARATOR in name for name in names):
            fix = f"name it without {SEPARATOR!r}, which separates classes in tables and answers"
            raise DataError(f"the class {text!r} holds a {SEPARATOR!r}", fix=fix)
        return join_classes(name for name in names if name)

    def of_cells(self, cells: Sequence[str], columns: Sequence[str], delimiter: str) -> str | None:
        """The classes in the one cell, or, of named columns, those columns that say 1."""
        if not columns:
            return self.of_text(cells[0], delimiter)
        return join_classes(_columns_of_1(cells, columns)) if all(cells) else None

    def classes(self, label: str) -> list[str]:
        """The classes."""
        return classes_of(label)

    def strata(self, labels: Sequence[str], fewest: int = 1) -> list[str]:
        """The rarest class of each image, so that rare ones are on both sides; small strata become one."""
        counts = self.count(labels)
        names = [min(classes_of(label), key=lambda name: (counts[name], name), default="") for label in labels]
        counts = Counter(names)
        names = [name if counts[name] >= fewest else "" for name in names]
        counts = Counter(names)
        largest = max(counts, key=lambda name: (counts[name], name), default="")
        return [largest if name == "" and counts[""] < fewest else name for name in names]

    def findings(self, labels: Sequence[str], sizes: dict[str, int]) -> list[tuple[str, str]]:
        """Images without any class, classes that all images have, and labels that never hold two classes."""
        findings, counts = [], [len(classes_of(label)) for label in labels]
        if none := counts.count(0):
            findings.append(("note", f"{none} images have none of the classes"))
        for name, size in sizes.items():
            if size == len(labels):
                findings.append(("error", f"every image has the class {name!r}: there is nothing to learn of it"))
        if max(counts, default=0) == 1 and len(sizes) > 1:
            hint = next((mark for mark in SEPARATORS if any(mark in name for name in sizes)), None)
            text = f": one class each is --task {CLASSIFICATION}"
            text = f"; are they separated by {hint!r}? (--delimiter {hint!r})" if hint else text
            findings.append(("warning", f"no image has two classes{text}"))
        return findings

    def targets(self, labels: Sequence[str], vocab: Sequence[str]) -> np.ndarray:
        """1 where an image has a class: int (n, classes)."""
        own = [set(classes_of(label)) for label in labels]
        return np.array([[name in one for name in vocab] for one in own], dtype=np.int64)

    def wrong(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Which images get a class too many or too few."""
        return ((outputs > 0) != (targets > 0)).any(1)

    def class_weights(self, labels: Sequence[str], vocab: Sequence[str]) -> list[float]:
        """images without the class / images with it, so that its presence counts as much as its absence."""
        counts = self.count(labels)
        return [(len(labels) - counts[name]) / max(1, counts[name]) for name in vocab]

    def block(self) -> Any:
        """Several categories."""
        from fastai.vision.all import MultiCategoryBlock

        return MultiCategoryBlock

    def reader(self) -> Callable:
        """The classes."""
        from kit.tasks.objectives import image_classes

        return image_classes

    def loss(self, output_range: Any = None) -> Callable:
        """Binary cross entropy of each class."""
        from fastai.vision.all import BCEWithLogitsLossFlat

        return BCEWithLogitsLossFlat()

    def training_loss(self, weight: Any, smoothing: float) -> Callable:
        """The same with weighted classes."""
        from fastai.vision.all import BCEWithLogitsLossFlat

        return BCEWithLogitsLossFlat(pos_weight=weight)

    def metrics(self, outputs: int) -> list[Callable]:
        """The mean F1 with a threshold of 0.5, and the mean average precision."""
        from kit.tasks.objectives import f1_at_half, metric

        return [metric(f1_at_half, "sigmoid"), metric(scores.mean_average_precision, "sigmoid")]


class RegressionTraining(TaskTraining):
    """Numbers: the mean squared error within their range, and a ridge regression on features."""

    solver = quick_solver = Ridge

    def of_text(self, text: str, delimiter: str = SEPARATOR) -> str:
        """The number."""
        if not _is_number(_one(text)):
            fix = "write numbers with a point, like 41.5, or say --task classification"
            raise DataError(f"{text.strip()!r} is no number", fix=fix)
        return join_numbers([float(text)])

    def names(self, columns: Sequence[str]) -> list[str]:
        """The columns that hold the numbers; the number of a label rule is called "value"."""
        return list(columns) or [ALONE]

    def strata(self, labels: Sequence[str], fewest: int = 1) -> list[str]:
        """The tenth, or a larger part where there are few images, of the first number's order in which an image is."""
        first = np.array([numbers_of(label)[0] for label in labels])
        parts = max(1, min(MOST_STRATA, len(first) // FEWEST_A_STRATUM))
        return [f"{place:02}" for place in np.searchsorted(np.sort(first), first) * parts // max(1, len(first))]

    def targets(self, labels: Sequence[str], vocab: Sequence[str]) -> np.ndarray:
        """The numbers: float64 (n, targets)."""
        return np.array([numbers_of(label) for label in labels])

    def ends(self, labels: Sequence[str], limits: tuple[float, float] | None) -> tuple[list[float], list[float]]:
        """The limits, or a tenth of their spread beyond the numbers of the training images."""
        values = self.targets(labels, ())
        low, high = values.min(0), values.max(0)
        spread = np.where(high > low, high - low, 1.0)
        if limits:
            low, high = (np.full(values.shape[1], end) for end in limits)
        else:
            low, high = low - MARGIN * spread, high + MARGIN * spread
        return low.tolist(), high.tolist()

    def block(self) -> Any:
        """A float32 tensor (targets,)."""
        from fastai.vision.all import TransformBlock

        from kit.tasks.objectives import Numbers

        return TransformBlock(type_tfms=Numbers)

    def reader(self) -> Callable:
        """The numbers."""
        from kit.tasks.objectives import image_numbers

        return image_numbers

    def loss(self, output_range: Any = None) -> Callable:
        """The mean squared error, in widths of the range."""
        from kit.tasks.objectives import RangeLoss

        return RangeLoss(output_range)

    def metrics(self, outputs: int) -> list[Callable]:
        """The mean R2; of one number, also its mean absolute error."""
        from kit.tasks.objectives import mean_mae, mean_r2, metric

        return [metric(mean_r2), *([metric(mean_mae)] if outputs == 1 else [])]


def _one(text: str | list) -> str:
    """The text of one label. Raises `DataError` for a list of several."""
    if isinstance(text, str):
        return text
    raise DataError(f"{text!r} is a list", fix=f"give one label an image, or say --task {MULTILABEL}")


def _columns_of_1(cells: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns whose cells say 1. Raises `DataError` for a cell that says neither 1 nor 0."""
    for cell, column in zip(cells, columns, strict=True):
        if str(cell).lower() not in YES | NO:
            raise DataError(f"{column} is {cell!r}", fix="write 1 where the image has the class, and 0 where not")
    return [column for cell, column in zip(cells, columns, strict=True) if cell.lower() in YES]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


TRAINING = {
    CLASSIFICATION: ClassificationTraining(),
    MULTILABEL: MultiLabelTraining(),
    REGRESSION: RegressionTraining(),
}


def training_of(task: str) -> TaskTraining:
    """How the task of that name is learned. Raises `KeyError` for any other."""
    return TRAINING[task]
