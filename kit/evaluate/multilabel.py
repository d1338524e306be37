"""Results of several classes an image: F1 with its interval, average precision and the figures of each class.

result = MultiLabelEvaluation.from_probabilities(paths, truth, probabilities, ["cat", "dog"]); result.f1
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import scores
from kit.errors import DataError
from kit.evaluate.pictures import draw_classes
from kit.evaluate.result import PROBABILITY, Result, plain_json
from kit.evaluate.thresholds import fit_thresholds
from kit.intervals import Estimate, bootstrap_means, wilson
from kit.tasks import of
from kit.tasks.text import HALF, MULTILABEL, NONE, classes_of, join_classes

SMALLEST = 1e-12


@dataclass(frozen=True)
class MultiLabelEvaluation(Result):
    """Predictions of several classes each. `predictions`: one row an image with path, label and prediction (as
    "cat;dog"), correct (all classes right), loss (binary cross entropy, nats, mean of the classes), and p_CLASS for
    each class. thresholds: the probability from which on each class is predicted."""

    thresholds: list[float]

    task, name, words = MULTILABEL, "f1", "F1"

    @classmethod
    def from_probabilities(
        cls,
        paths: Sequence[str],
        truth: np.ndarray,
        probabilities: np.ndarray,
        vocab: Sequence[str],
        thresholds: Sequence[float] | None = None,
    ) -> "MultiLabelEvaluation":
        """From the truth and probabilities, both (images, classes) in the order of `vocab`; thresholds: 0.5 by default.

        Raises `DataError` where there is no image."""
        if not len(truth):
            raise DataError("no image could be predicted", fix="give a folder with labelled images that open")
        vocab, truth = [str(name) for name in vocab], np.asarray(truth, bool)
        thresholds = [HALF] * len(vocab) if thresholds is None else list(thresholds)
        predicted = probabilities >= np.array(thresholds)
        own = np.where(truth, probabilities, 1 - probabilities)
        labels, predictions = ([_text(row, vocab) for row in rows] for rows in (truth, predicted))
        table = pd.DataFrame({"path": pd.Series(list(paths), dtype=object), "label": labels, "prediction": predictions})
        table["correct"] = (truth == predicted).all(1)
        table["loss"] = -np.log(np.maximum(own, SMALLEST)).mean(1)
        columns = {f"{PROBABILITY}{name}": probabilities[:, place] for place, name in enumerate(vocab)}
        return cls(pd.concat([table, pd.DataFrame(columns)], axis=1), vocab, thresholds)

    @classmethod
    def from_outputs(
        cls, paths: Sequence[str], outputs: Any, targets: Any, vocab: Sequence[str], output_range: Any = None
    ) -> "MultiLabelEvaluation":
        """From a network's logits and the truth (images, classes) that fastai made of the labels."""
        return cls.from_probabilities(paths, targets.numpy() > 0, of(cls.task).activation(outputs).numpy(), vocab)

    @classmethod
    def from_predictions(
        cls, predictions: Sequence[Any], labels: Sequence[str], config: Mapping[str, Any]
    ) -> "MultiLabelEvaluation":
        """From a bundle's predictions (`kit.tasks.Prediction`, none with an error), the true labels and its config."""
        vocab, paths = config["vocab"], [one.path for one in predictions]
        truth = np.array([[name in classes_of(label) for name in vocab] for label in labels])
        probabilities = np.array([[one.probabilities[name] for name in vocab] for one in predictions])
        return cls.from_probabilities(paths, truth, probabilities, vocab, config["thresholds"])

    @property
    def probabilities(self) -> np.ndarray:
        """Shape (images, classes), in the order of `vocab`."""
        return self.predictions[[f"{PROBABILITY}{name}" for name in self.vocab]].to_numpy()

    outputs = probabilities

    @cached_property
    def truth(self) -> np.ndarray:
        """Which classes each image has: bool (images, classes)."""
        return np.array([[name in classes_of(label) for name in self.vocab] for label in self.predictions["label"]])

    @property
    def predicted(self) -> np.ndarray:
        """Which classes were predicted for each image: bool (images, classes)."""
        return self.probabilities >= np.array(self.thresholds)

    @cached_property
    def f1(self) -> Estimate:
        """The mean F1 of the classes, with its 95 % interval by a bootstrap over the images.

        The F1 of a class that no image has, and none is predicted to have, counts as 0."""
        truth, predicted = self.truth, self.predicted
        counts = np.concatenate([truth & predicted, predicted, truth], axis=1)

        def mean(shares: np.ndarray) -> np.ndarray:
            return np.nan_to_num(scores.f1(*np.split(shares, 3, axis=1))).mean(1)

        return bootstrap_means(counts, mean)

    headline = property(lambda self: self.f1)

    @property
    def exact(self) -> Estimate:
        """The share of images of which all classes are right, with its 95 % Wilson interval."""
        return wilson(int(self.predictions["correct"].sum()), self.n)

    @cached_property
    def mean_average_precision(self) -> float:
        """The mean over the classes of the average precision, which does not depend on thresholds."""
        return scores.mean_average_precision(self.probabilities, self.truth)

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """A row for each class: n (images that have it), threshold, precision, recall, f1, average_precision; NaN where
        they are not defined."""
        truth, predicted, probabilities = self.truth, self.predicted, self.probabilities
        right, there, claimed = (truth & predicted).sum(0), truth.sum(0), predicted.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = {"precision": right / claimed, "recall": right / there, "f1": scores.f1(right, claimed, there)}
        areas = scores.average_precision(probabilities, truth)
        columns = {"n": there, "threshold": self.thresholds} | shares | {"average_precision": areas}
        return pd.DataFrame(columns, index=self.vocab)

    breakdown = property(lambda self: self.per_class)

    def again(self, outputs: np.ndarray) -> "MultiLabelEvaluation":
        """The evaluation of other probabilities of the same images."""
        return self.from_probabilities(self.predictions["path"], self.truth, outputs, self.vocab, self.thresholds)

    def caption(self, row: Any) -> tuple[str, bool]:
        """The predicted classes, then those that are missing or wrong."""
        predicted, there = set(classes_of(row.prediction)), set(classes_of(row.label))
        text = ", ".join(sorted(predicted)) or NONE
        missed, extra = sorted(there - predicted), sorted(predicted - there)
        remarks = [f"missed {', '.join(missed)}"] * bool(missed) + [f"has no {', '.join(extra)}"] * bool(extra)
        return "; ".join([text, *remarks]), bool(row.correct)

    def examples(self, count: int) -> pd.DataFrame:
        """Of each combination of classes the right prediction with the lowest loss, then the next ones."""
        right = self.predictions[self.predictions["correct"]].sort_values("loss", kind="stable")
        turn = right.groupby("label").cumcount()
        return right.assign(turn=turn).sort_values("turn", kind="stable").head(count).drop(columns="turn")

    def mistakes(self, count: int) -> pd.DataFrame:
        """The predictions with a wrong class, highest losses first."""
        return self.predictions[~self.predictions["correct"]].nlargest(count, "loss")

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; NaN becomes null."""
        precision = self.mean_average_precision
        return {
            "mean_average_precision": None if np.isnan(precision) else precision,
            "exact": self.exact.value,
            "loss": float(self.predictions["loss"].mean()),
            "per_class": plain_json(self.per_class),
        }

    def lines(self) -> list[str]:
        """The result in words: F1, average precision, and the classes with the lowest F1."""
        lines = [f"F1 {self.f1}, the mean of {len(self.vocab)} classes; mean average precision "
                 f"{self.mean_average_precision:.4f}; all classes right: {self.exact}"]  # fmt: skip
        worst = self.per_class["f1"].fillna(0).sort_values(kind="stable").head(3)
        if len(self.vocab) > 1 and worst.iloc[0] < 1:
            lines.append("found worst: " + "; ".join(f"{name} (F1 {value:.2f})" for name, value in worst.items()))
        return lines + self.remarks()

    def answer_rules(self) -> dict[str, Any]:
        """The threshold of each class that gives the highest F1, and F1 without and with them."""
        fitted = asdict(fit_thresholds(self.probabilities, self.truth))
        return {"thresholds": fitted.pop("values"), "thresholds_fit": fitted}

    def answered(self, rules: Mapping[str, Any]) -> "MultiLabelEvaluation":
        """The result with the thresholds of a bundle."""
        paths, thresholds = self.predictions["path"], rules["thresholds"]
        found = self.from_probabilities(paths, self.truth, self.probabilities, self.vocab, thresholds)
        return replace(found, missing=self.missing)

    def draw_overview(self, folder: Path) -> Path:
        """F1 and average precision of each class."""
        return draw_classes(self, folder / "classes.png")


def _text(row: np.ndarray, vocab: Sequence[str]) -> str:
    return join_classes(name for name, there in zip(vocab, row, strict=True) if there)
