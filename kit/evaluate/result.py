"""The base class of results: predictions on labelled images, one main figure with its interval, and its wording."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from kit.intervals import Estimate, too_few
from kit.tasks import of

PROBABILITY = "p_"


@dataclass(frozen=True)
class Result(ABC):
    """Predictions on labelled images.

    predictions: one row for each image with path, label, prediction and loss, and further columns by task.
    vocab: the names of the classes or numbers.
    """

    predictions: pd.DataFrame
    vocab: list[str]

    features: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, kw_only=True)
    """By path, the features (f,) of some of the images, where they were kept."""

    missing: frozenset[str] = field(default=frozenset(), repr=False, kw_only=True)
    """Paths of images that changed or vanished since they were predicted, so that they cannot be shown."""

    task: ClassVar[str]
    name: ClassVar[str]
    """The name of the main figure in JSON: error_rate, f1, r2."""

    words: ClassVar[str]
    """The name of the main figure in text."""

    @classmethod
    @abstractmethod
    def from_outputs(
        cls, paths: Sequence[str], outputs: Any, targets: Any, vocab: Sequence[str], output_range: Any = None
    ) -> "Result":
        """From the float64 tensor (images, outputs) that a network's last layer gave, and fastai's targets."""

    @classmethod
    @abstractmethod
    def from_predictions(cls, predictions: Sequence[Any], labels: Sequence[str], config: Mapping[str, Any]) -> "Result":
        """From a bundle's predictions, none with an error, the true labels, and the bundle's config."""

    @property
    def n(self) -> int:
        """How many images were predicted."""
        return len(self.predictions)

    @property
    def here(self) -> "Result":
        """The result of those images that can still be opened."""
        return replace(self, predictions=self.predictions[~self.predictions["path"].isin(self.missing)])

    @property
    @abstractmethod
    def headline(self) -> Estimate:
        """The main figure of the task, with its 95 % interval."""

    @property
    @abstractmethod
    def outputs(self) -> np.ndarray:
        """Probabilities or numbers (images, outputs), in the order of `vocab`."""

    @property
    @abstractmethod
    def breakdown(self) -> pd.DataFrame:
        """A table of figures with one row for each class or number."""

    @abstractmethod
    def caption(self, row: Any) -> tuple[str, bool]:
        """The caption of the image in a row of `predictions`, and whether the prediction is good."""

    @abstractmethod
    def again(self, outputs: np.ndarray) -> "Result":
        """A result with other `outputs` for the same images."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All figures as plain JSON values; NaN becomes null."""

    @abstractmethod
    def lines(self) -> list[str]:
        """The result in words."""

    @abstractmethod
    def examples(self, count: int) -> pd.DataFrame:
        """Good predictions, as different from each other as possible."""

    @abstractmethod
    def mistakes(self, count: int) -> pd.DataFrame:
        """Bad predictions, the worst or most different first."""

    @abstractmethod
    def draw_overview(self, folder: Path) -> Path:
        """Draw the picture of the whole result into a folder; returns its path."""

    def answer_rules(self) -> dict[str, Any]:
        """What a bundle's config.json needs to turn outputs into answers, fitted on these predictions."""
        return {}

    def answered(self, rules: Mapping[str, Any]) -> "Result":
        """The result as a bundle answers whose config.json has these `answer_rules`."""
        return self

    def reliability(self) -> dict[str, Any] | None:
        """The dots of the reliability diagram and the calibration error, of one class an image."""
        return None

    def selection(self, count: int = 4) -> pd.DataFrame:
        """Good predictions, and the worst mistake if there is one."""
        worst = self.mistakes(1)
        return pd.concat([self.examples(count - len(worst)), worst])

    def top_losses(self, count: int = 9) -> pd.DataFrame:
        """The rows of `predictions` with the highest loss."""
        return self.predictions.nlargest(count, "loss")

    def figures(self) -> dict[str, float]:
        """The headline, its n, and both ends of its interval, for programs."""
        found = self.headline
        return {self.name: found.value, "n": found.n, "low": found.low, "high": found.high}

    def remarks(self) -> list[str]:
        """A warning where there are too few images to rely on the figures."""
        small = too_few(self.n, is_rate=of(self.task).is_rate)
        return [f"note: {small}"] if small else []


def plain_json(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """A table's rows by name, as plain JSON values: six digits, NaN becomes null."""
    return {
        str(name): {key: None if np.isnan(value) else round(float(value), 6) for key, value in row.items()}
        for name, row in table.iterrows()
    }
