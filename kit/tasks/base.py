"""The protocol of a task: its names and wording, and how its predictions are read, written and shown.

`kit.tasks.of(name)` gives one. It imports the standard library alone, so that a Space runs it without kit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kit.tasks.text import MOST_IN_TITLE, NONE, percent, shown

Config = Mapping[str, Any]
LARGEST = 1e100
LEAST_SCALE, ROOM = 0.05, 1.25
LIKE = "photos like those it learned"
SCORE = "{:.3f}".format


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: the class, its probability, and the probabilities of all classes.

    probabilities: calibrated, of all classes; plain: as the network gives them, before calibration.
    unlike: whether the image is unlike the training images; None where the bundle has no detector for that.
    labels: of several classes, those whose probability reaches their threshold; `label` holds the same as "cat;dog".
    numbers: of regression, by name. error: why the image cannot be opened; the other fields are then None or empty.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    plain: dict[str, float] = field(default_factory=dict)
    unlike: bool | None = None
    labels: tuple[str, ...] | None = None
    numbers: dict[str, float] = field(default_factory=dict)

    def top(self, count: int | None = 3) -> list[tuple[str, float]]:
        """The `count` likeliest classes, or all, with their probabilities, likeliest first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:count]

    @property
    def text(self) -> str:
        """The answer in words: "cat", "cat, dog", "age 41.2"; "" where there is none."""
        if self.numbers:
            return ", ".join(f"{name} {shown(number)}" for name, number in self.numbers.items())
        return self.label or "" if self.labels is None else ", ".join(self.labels) or NONE


class Figure(NamedTuple):
    """A figure of each class or number in config.json: its heading, how a value is written, and what it means."""

    heading: str
    text: Callable[[float], str]
    meaning: str = ""

    @property
    def is_score(self) -> bool:
        """Whether 1 is its best value."""
        return self.text is SCORE


FIGURES = {
    "n": Figure("images", "{:,.0f}".format),
    "threshold": Figure("threshold", shown, "the probability from which on the class is predicted"),
    "precision": Figure("precision", SCORE, "the share of the images predicted as the class that have it"),
    "recall": Figure("recall", SCORE, "the share of the images that have the class that are predicted as it"),
    "f1": Figure("F1", SCORE, "the harmonic mean of precision and recall"),
    "average_precision": Figure("average precision", SCORE, "the mean precision over all thresholds"),
    "mae": Figure("MAE", shown, "the mean absolute error, with its 95 % interval"),
    "low": Figure("95 % from", shown),
    "high": Figure("to", shown),
    "rmse": Figure("RMSE", shown, "the root of the mean squared error, in which large errors weigh more"),
    "r2": Figure("R2", "{:.2f}".format, "the share of the variation that is explained"),
}


class Scale(NamedTuple):
    """A figure with its 95 % interval, to be drawn on a line from 0 to `end`; `text` writes its numbers."""

    value: float
    low: float
    high: float
    end: float
    text: Callable[[float], str]
    name: str = ""


class Task(ABC):
    """What a network predicts for an image: attributes with names and wording, and methods that read a prediction or
    the config.json of a bundle. vocab: the names of the classes or numbers. Methods that show a prediction expect one
    without an error; `kit.tasks.training` has the counterpart for training."""

    name: str
    headline: str  # the main figure, as a key of config.json["metrics"]
    heading: str  # above the figures of `scales`
    noun, nouns = "class", "classes"  # what a name in the vocabulary stands for
    output, outputs = "probability", "probabilities"  # what the network computes; `outputs` is a field of Prediction
    difference = "a probability"  # what differs between two networks, in the unit of `width`
    joiner = ", "
    tag = "image-classification"  # on the Hugging Face Hub
    purpose: str
    limit: str
    overview = ""  # what the report's picture of the whole result shows, where no confusion matrix does
    mistakes = "Mistakes"
    heat_target = "the chosen class"  # what bright parts of a heat map contribute to
    order = "The least sure answers come first."  # of many photos
    answer_columns: tuple[tuple[str, str], ...] = (("prediction", "label"),)  # of a table, and the fields they show
    prefix = "p_"  # of the further columns, one for each class or number
    digits = ".6f"
    most_columns = 8  # how many of these a page shows
    json_fields: tuple[str, ...]
    breakdown_key = "per_class"  # of config.json["metrics"]
    figures: tuple[str, ...]  # keys of FIGURES
    fewest = 1  # names in the vocabulary
    is_rate = False  # whether the main figure is a share of the images that are wrong
    always_measured = True  # whether the main figure is always a number; R2 of equal numbers is none
    recipe_fields: tuple[str, ...]  # fields of a Recipe that mean nothing for other tasks
    onnx_activation: str  # `activation` as an operator of ONNX
    published: tuple[str, ...]  # further keys of config.json["metrics"] in the answer of the REST API
    text = staticmethod(percent)  # writes an output
    score = staticmethod(SCORE)  # writes the main figure

    @abstractmethod
    def answer(self, outputs: dict[str, float], config: Config) -> dict[str, Any]:
        """What the outputs of one image mean: fields of a `Prediction`."""

    @abstractmethod
    def activation(self, logits: Any) -> Any:
        """From the last layer's torch tensor (n, outputs) to probabilities, or numbers as they are."""

    def width(self, config: Config) -> Any:
        """The unit in which outputs are compared: 1, or the width of each number's range."""
        return 1.0

    def changed(self, outputs: Any, expected: Any) -> int:
        """For how many images other outputs, arrays (n, outputs), mean another class where only one is the answer."""
        return 0

    def problem(self, config: Config) -> str | None:
        """What of config.json this task needs and does not find, or None."""
        for key in (self.headline, "n", "low", "high"):
            value = config["metrics"].get(key, "")
            if not is_number(value) and (value is not None or self.always_measured or key == "n"):
                return f"field metrics.{key} is not a number"
        return None

    @abstractmethod
    def parts(self, one: Prediction, most: int = 1) -> list[tuple[str, str]]:
        """The answer as (name, value); most: how many classes, where the likeliest one is the answer."""

    @abstractmethod
    def groups(self, one: Prediction, config: Config) -> dict[str, list[str]]:
        """The classes or numbers that a page shows of a prediction, below their headings."""

    @abstractmethod
    def ability(self, vocab: Sequence[str]) -> str:
        """What it does, for a person who knows nothing of it: "Tells cat from dog"."""

    @abstractmethod
    def record(self, config: Config) -> str:
        """How often or how far it is wrong, in words, to follow `ability`; "" where that was not measured."""

    def doubt(self, one: Prediction, config: Config) -> float:
        """How unsure an answer is: the larger, the less sure. Equal where a task cannot tell."""
        return 0.0

    @abstractmethod
    def reliability(self, config: Config) -> str:
        """How far probabilities or numbers can be relied on, in one sentence or two."""

    def doubts(self, config: Config) -> str:
        """Why probabilities cannot be relied on, where that is so."""
        return ""

    def title(self, vocab: Sequence[str]) -> str:
        """The classes or numbers where they are few, or how many there are."""
        return self.joiner.join(vocab) if len(vocab) <= MOST_IN_TITLE else f"{len(vocab)} {self.nouns}"

    def label(self, text: str, vocab: Sequence[str]) -> str:
        """A label of a table as people write it."""
        return text

    def thresholds(self, config: Config) -> dict[str, float]:
        """The probability from which on each class is predicted, where each is predicted for itself."""
        return {}

    def ranges(self, config: Config) -> dict[str, tuple[float, float]]:
        """The lowest and highest answer of each number, or number of the training images."""
        return {}

    def scales(self, config: Config) -> list[Scale]:
        """The figures that matter most, with their 95 % intervals."""
        found = numbers_in(config["metrics"], self.headline, "low", "high")
        return [Scale(*found, min(1.0, max(LEAST_SCALE, ROOM * found[2])), self.score)] if found else []

    def remarks(self, config: Config) -> list[str]:
        """Sentences about further figures."""
        return []

    def described(self, config: Config) -> dict[str, Any]:
        """The figures and, where there are any, thresholds or ranges, for the REST API."""
        return {key: config["metrics"].get(key) for key in (self.breakdown_key, *self.published)}

    def breakdown(self, config: Config) -> dict[str, Mapping[str, Any]]:
        """The figures of each class or number, in the order of the vocabulary; a figure may be None."""
        rows = config["metrics"].get(self.breakdown_key)
        rows = rows if isinstance(rows, Mapping) else {}
        return {name: rows[name] for name in config["vocab"] if self._is_row(rows.get(name))}

    def _is_row(self, row: Any) -> bool:
        return isinstance(row, Mapping) and all(row.get(key) is None or is_number(row[key]) for key in self.figures)

    def row(self, one: Prediction, vocab: Sequence[str]) -> dict[str, Any]:
        """A row of every table and CSV file of predictions."""
        answers = {column: getattr(one, name) for column, name in self.answer_columns}
        outputs = {f"{self.prefix}{name}": getattr(one, self.outputs).get(name) for name in vocab}
        return {"path": one.path} | answers | outputs | {"unlike": one.unlike, "error": one.error}

    def columns(self, vocab: Sequence[str]) -> list[str]:
        """The columns of these tables."""
        return list(self.row(Prediction(""), vocab))

    def csv_line(self, one: Prediction, vocab: Sequence[str]) -> list[str]:
        """`row` as texts: six digits after the point, of numbers seven in all; true or false; nothing for None."""
        return [self._csv_text(value) for value in self.row(one, vocab).values()]

    def _csv_text(self, value: Any) -> str:
        if isinstance(value, float):
            return format(value, self.digits)
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    def json(self, one: Prediction) -> dict[str, Any]:
        """A prediction as JSON values, with the same keys where there was an error; probabilities in falling order."""
        fields = vars(one) | {"probabilities": dict(one.top(None))}
        return {name: rounded(fields[name]) for name in (*self.json_fields, "unlike", "error")}


def rounded(value: Any) -> Any:
    """A value for programs: floats with seven digits, which float32 holds."""
    if isinstance(value, dict):
        return {name: rounded(number) for name, number in value.items()}
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return list(value) if isinstance(value, tuple) else value


def is_number(value: Any) -> bool:
    """Whether a value of a bundle, which may come from a stranger, is a number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def are_numbers(values: Any, count: int) -> bool:
    """Whether the values are a list of so many numbers."""
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


def numbers_in(values: Any, *keys: str) -> list[float] | None:
    """The values of these keys, where all of them are numbers that can be shown."""
    found = [values.get(key) for key in keys] if isinstance(values, Mapping) else [None]
    return found if all(map(is_number, found)) else None
