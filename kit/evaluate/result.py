"""What every result is, whatever the task: predictions on labelled images, one figure with its interval, and words."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from kit.intervals import Estimate, too_few
from kit.tasks import of

PROBABILITY = "p_"


@dataclass(frozen=True)
class Result(ABC):
    """Predictions on labelled images. `predictions`: a row an image with path, label, prediction and loss, and more by
    task; `vocab`: the classes, or what the numbers are called."""

    predictions: pd.DataFrame
    vocab: list[str]

    features: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, kw_only=True)
    """By path, what the head was given of some of the images, (f,), where that was kept."""

    task: ClassVar[str]
    name: ClassVar[str]
    """What the headline is called in JSON: error_rate, f1, r2."""

    words: ClassVar[str]
    """What people call it."""

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
    @abstractmethod
    def headline(self) -> Estimate:
        """The one figure of the task, with its 95 % interval."""

    @property
    @abstractmethod
    def outputs(self) -> np.ndarray:
        """What the network said, in the order of `vocab`: (images, outputs), probabilities or numbers."""

    @property
    @abstractmethod
    def breakdown(self) -> pd.DataFrame:
        """A row a class, or a number of regression, with its figures."""

    @abstractmethod
    def caption(self, row: Any) -> tuple[str, bool]:
        """What to write below the image of a row of `predictions`, and whether the prediction is good."""

    @abstractmethod
    def again(self, outputs: np.ndarray) -> "Result":
        """The result of other `outputs` on the same images."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All figures as plain JSON values; NaN becomes null."""

    @abstractmethod
    def lines(self) -> list[str]:
        """The result in words."""

    @abstractmethod
    def examples(self, count: int) -> pd.DataFrame:
        """A few good predictions, as different as can be."""

    @abstractmethod
    def mistakes(self, count: int) -> pd.DataFrame:
        """A few bad predictions worth a look."""

    @abstractmethod
    def draw_overview(self, folder: Path) -> Path:
        """Draw the picture of the whole result into a folder; returns its path."""

    def answer_rules(self) -> dict[str, Any]:
        """What a bundle's config.json needs to turn outputs into answers, fitted on these predictions."""
        return {}

    def reliability(self) -> dict[str, Any] | None:
        """The dots of the reliability diagram and the calibration error, of one class an image."""
        return None

    def telling(self, count: int = 4) -> pd.DataFrame:
        """Good predictions, and the worst mistake where there is one."""
        worst = self.mistakes(1)
        return pd.concat([self.examples(count - len(worst)), worst])

    def top_losses(self, count: int = 9) -> pd.DataFrame:
        """The rows with the highest loss: what the model got most wrong."""
        return self.predictions.nlargest(count, "loss")

    def figures(self) -> dict[str, float]:
        """The headline, its n, and both ends of its interval, for programs."""
        found = self.headline
        return {self.name: found.value, "n": found.n, "low": found.low, "high": found.high}

    def remarks(self) -> list[str]:
        """Whether so few images can tell, in words."""
        small = too_few(self.n, of(self.task).is_rate)
        return [f"note: {small}"] if small else []


def plain_json(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """A table's rows by name, as plain JSON values: six digits, NaN becomes null."""
    return {
        str(name): {key: None if np.isnan(value) else round(float(value), 6) for key, value in row.items()}
        for name, row in table.iterrows()
    }
