"""Results of numbers: their errors in their own unit, and R2.

result = RegressionEvaluation.from_numbers(paths, truth, numbers, ["age"], [100.0]); result.headline
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import scores
from kit.errors import DataError
from kit.evaluate.pictures import draw_scatter
from kit.evaluate.result import Result, plain_json
from kit.intervals import Estimate, bootstrap_means
from kit.tasks import of
from kit.tasks.text import REGRESSION, join_numbers, numbers_of, shown

TRUE, PREDICTED = "true_", "predicted_"


@dataclass(frozen=True)
class RegressionEvaluation(Result):
    """Predictions of numbers.

    predictions: one row for each image with path, label and prediction (texts), loss (the mean squared error in widths
    of the range), and true_NAME and predicted_NAME for each number. vocab: the names of the numbers.
    """

    width: list[float]
    """The width of each number's range."""

    task, name, words = REGRESSION, "r2", "R2"

    @classmethod
    def from_numbers(
        cls,
        paths: Sequence[str],
        truth: np.ndarray,
        numbers: np.ndarray,
        vocab: Sequence[str],
        width: Sequence[float],
    ) -> "RegressionEvaluation":
        """From true and predicted numbers, both (images, targets) in the order of `vocab`.

        width: of each target's range, in which the loss is measured. Raises `DataError` where there is no image."""
        if not len(truth):
            raise DataError("no image could be predicted", fix="give a folder with labelled images that open")
        # Both passed through float32: more than seven digits would be noise.
        labels, predictions = (
            [join_numbers(float(f"{n:.7g}") for n in row) for row in rows] for rows in (truth, numbers)
        )
        truth = np.array([numbers_of(label) for label in labels])
        table = pd.DataFrame({"path": pd.Series(list(paths), dtype=object), "label": labels, "prediction": predictions})
        table["loss"] = np.square((numbers - truth) / np.array(width)).mean(1)
        columns = {}
        for place, name in enumerate(vocab):
            columns |= {f"{TRUE}{name}": truth[:, place], f"{PREDICTED}{name}": numbers[:, place]}
        return cls(pd.concat([table, pd.DataFrame(columns)], axis=1), [str(name) for name in vocab], list(width))

    @classmethod
    def from_outputs(
        cls, paths: Sequence[str], outputs: Any, targets: Any, vocab: Sequence[str], output_range: Any = None
    ) -> "RegressionEvaluation":
        """From a network's numbers, the truth (images, targets) that fastai made of the labels, and their range."""
        width = (output_range.high - output_range.low).tolist()
        return cls.from_numbers(paths, targets.double().numpy(), outputs.numpy(), vocab, width)

    @classmethod
    def from_predictions(
        cls, predictions: Sequence[Any], labels: Sequence[str], config: Mapping[str, Any]
    ) -> "RegressionEvaluation":
        """From a bundle's predictions (`kit.tasks.Prediction`, none with an error), the true labels and its config."""
        vocab, truth = config["vocab"], np.array([numbers_of(label) for label in labels])
        if truth.ndim == 2 and truth.shape[1] != len(vocab):
            problem = f"the images have {truth.shape[1]} numbers each, and the bundle predicts {', '.join(vocab)}"
            raise DataError(problem, fix=f"name its columns: --targets {','.join(vocab)}")
        numbers = np.array([[one.numbers[name] for name in vocab] for one in predictions])
        return cls.from_numbers([one.path for one in predictions], truth, numbers, vocab, of(cls.task).width(config))

    @property
    def truth(self) -> np.ndarray:
        """The true numbers: float64 (images, targets)."""
        return self.predictions[[f"{TRUE}{name}" for name in self.vocab]].to_numpy()

    @property
    def outputs(self) -> np.ndarray:
        """The predicted numbers: float64 (images, targets)."""
        return self.predictions[[f"{PREDICTED}{name}" for name in self.vocab]].to_numpy()

    @cached_property
    def headline(self) -> Estimate:
        """R2, the share of the variance that is explained, mean of the targets, with its 95 % bootstrap interval."""
        truth = self.truth - self.truth.mean(0)
        columns = np.concatenate([np.square(self.outputs - self.truth), truth, np.square(truth)], axis=1)

        def mean_r2(means: np.ndarray) -> np.ndarray:
            errors, first, second = np.split(means, 3, axis=1)
            variance = second - np.square(first)
            return (1 - errors / np.where(variance > 0, variance, np.nan)).mean(1)

        return bootstrap_means(columns, mean_r2)

    def off_by(self, place: int) -> Estimate:
        """The mean absolute error of the target at `place` in `vocab`, in its unit, with its 95 % interval."""
        gaps = np.abs(self.outputs - self.truth)[:, place : place + 1]
        return bootstrap_means(gaps, lambda means: means[:, 0])

    @cached_property
    def per_target(self) -> pd.DataFrame:
        """A row for each target: mae and its 95 % interval, rmse, in the unit of the target; and r2."""
        found = [self.off_by(place) for place in range(len(self.vocab))]
        ends = {"mae": [one.value for one in found], "low": [one.low for one in found], "high": [e.high for e in found]}
        rest = {"rmse": scores.rmse(self.outputs, self.truth), "r2": scores.r2(self.outputs, self.truth)}
        return pd.DataFrame(ends | rest, index=self.vocab)

    breakdown = property(lambda self: self.per_target)

    def again(self, outputs: np.ndarray) -> "RegressionEvaluation":
        """The evaluation of other numbers of the same images."""
        return self.from_numbers(self.predictions["path"], self.truth, outputs, self.vocab, self.width)

    def caption(self, row: Any) -> tuple[str, bool]:
        """The numbers, each with the true one. Good: all errors are at most the mean absolute error of their target."""
        predicted, there = numbers_of(row.prediction), numbers_of(row.label)
        names = [f"{name} " if len(self.vocab) > 1 else "" for name in self.vocab]
        parts = [f"{name}{shown(a)} (is {shown(b)})" for name, a, b in zip(names, predicted, there, strict=True)]
        good = np.abs(np.subtract(predicted, there)) <= self.per_target["mae"].to_numpy()
        return ", ".join(parts), bool(good.all())

    def examples(self, count: int) -> pd.DataFrame:
        """Of the half with the lower losses some from the lowest true first number to the highest."""
        good = self.predictions.nsmallest(max(count, self.n // 2), "loss").sort_values(f"{TRUE}{self.vocab[0]}")
        return good.iloc[np.unique(np.linspace(0, len(good) - 1, min(count, len(good))).round().astype(int))]

    def mistakes(self, count: int) -> pd.DataFrame:
        """The highest losses."""
        return self.top_losses(count)

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; NaN becomes null."""
        return {"loss": float(self.predictions["loss"].mean()), "per_target": plain_json(self.per_target)}

    def figures(self) -> dict[str, float]:
        """R2 with its n and interval; None where the numbers do not vary."""
        return {key: None if np.isnan(value) else value for key, value in super().figures().items()}

    def lines(self) -> list[str]:
        """The result in words: the errors of each target in its unit, and the mean R2."""
        lines = [
            f"{row.Index}: off by {shown(row.mae)} on average (95 % {shown(row.low)} to {shown(row.high)}); "
            f"RMSE {shown(row.rmse)}, R2 {row.r2:.4f}"
            for row in self.per_target.itertuples()
        ]
        return [*lines, f"R2 {self.headline}" + (", the mean of all" if len(self.vocab) > 1 else ""), *self.remarks()]

    def draw_overview(self, folder: Path) -> Path:
        """Predicted over true numbers."""
        return draw_scatter(self, folder / "scatter.png")
