"""What a model says of one image, whatever its task, and how that is written down: in words, in a table, as CSV.

one.text                                        # "cat", "cat, dog", "age 41.2"
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.task import CLASSIFICATION, MULTILABEL, NONE, REGRESSION, join_classes, shown


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image: its best class and that class's probability, and those of all classes.

    The probabilities are calibrated: of all images called 80 % sure, about 80 % are right; `plain` holds the network's
    own. `unlike` says whether the image is not like the training images; None where the bundle cannot tell. Where an
    image may have several classes, `labels` are those whose probability reaches their threshold, and `label` the same
    as "cat;dog"; each class's probability stands for itself. Of regression, `numbers` holds the answers. Where the
    image cannot be opened, `error` says why, and the other fields are None and empty.
    """

    path: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    error: str | None = None
    plain: dict[str, float] = field(default_factory=dict)
    unlike: bool | None = None
    labels: tuple[str, ...] | None = None
    numbers: dict[str, float] = field(default_factory=dict)

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The `count` likeliest classes with their probabilities, likeliest first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:count]

    @property
    def text(self) -> str:
        """The answer in words; "" where there is none."""
        if self.numbers:
            return ", ".join(f"{name} {shown(number)}" for name, number in self.numbers.items())
        return self.label or "" if self.labels is None else ", ".join(self.labels) or NONE


class Predictions(list):
    """A list of `Prediction`, in the order of the images; `vocab` and `task` are the bundle's."""

    def __init__(self, rows: Iterable[Prediction], vocab: Sequence[str], task: str = CLASSIFICATION):
        super().__init__(rows)
        self.vocab, self.task = list(vocab), task

    def table(self) -> Any:
        """A pandas DataFrame with the `columns` of the task."""
        import pandas as pd

        rows = [cells(one, self.vocab, self.task) for one in self]
        return pd.DataFrame(rows, columns=columns(self.vocab, self.task))


def columns(vocab: Sequence[str], task: str = CLASSIFICATION) -> list[str]:
    """The columns of every table and CSV file of predictions."""
    answers = {
        CLASSIFICATION: ["prediction", "probability", *(f"p_{name}" for name in vocab)],
        MULTILABEL: ["prediction", *(f"p_{name}" for name in vocab)],
        REGRESSION: [f"predicted_{name}" for name in vocab],
    }
    return ["path", *answers[task], "unlike", "error"]


def cells(one: Prediction, vocab: Sequence[str], task: str = CLASSIFICATION) -> list[Any]:
    """A prediction's value in each of those columns; None where it has none."""
    shares = [one.probabilities.get(name) for name in vocab]
    answers = {
        CLASSIFICATION: [one.label, one.probability, *shares],
        MULTILABEL: [one.label, *shares],
        REGRESSION: [one.numbers.get(name) for name in vocab],
    }
    return [one.path, *answers[task], one.unlike, one.error]


def csv_line(one: Prediction, vocab: Sequence[str], task: str = CLASSIFICATION) -> list[str]:
    """The same as the texts of a CSV file: six digits after the point, of numbers seven in all; true or false; nothing
    for None."""
    digits = ".7g" if task == REGRESSION else ".6f"
    return [_as_text(value, digits) for value in cells(one, vocab, task)]


def _as_text(value: Any, digits: str) -> str:
    if isinstance(value, float):
        return format(value, digits)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def of_several(path: str, shares: dict[str, float], thresholds: Sequence[float], unlike: bool | None) -> Prediction:
    """The prediction of an image that may have several classes: those whose share reaches their threshold."""
    pairs = zip(shares.items(), thresholds, strict=True)
    said = sorted((name for (name, share), least in pairs if share >= least), key=lambda name: -shares[name])
    return Prediction(path, join_classes(said), None, shares, None, shares, unlike, tuple(said))
