"""Results of one class an image: the error rate, the confusion matrix and the figures of each class.

result = Evaluation.from_probabilities(paths, labels, probabilities, ["cat", "dog"]); result.error_rate
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.errors import DataError, some_of
from kit.evaluate.calibration import calibrate, calibrated, calibration_error
from kit.evaluate.pictures import draw_confusion
from kit.evaluate.result import PROBABILITY, Result, plain_json
from kit.intervals import Estimate, wilson
from kit.tasks import of
from kit.tasks.text import CLASSIFICATION, percent

SMALLEST = 1e-12
MOST_CELLS = 5_000
BINS = 10


@dataclass(frozen=True)
class Evaluation(Result):
    """Predictions of one class for each image.

    predictions: one row for each image with path, label, prediction, correct, probability (of the prediction), loss
    (cross entropy, nats), and p_CLASS for each class; a learner's probabilities are not calibrated. vocab: the classes.
    """

    task, name, words = CLASSIFICATION, "error_rate", "error rate"

    @classmethod
    def from_probabilities(
        cls, paths: Sequence[str], labels: Sequence[str], probabilities: np.ndarray, vocab: Sequence[str]
    ) -> "Evaluation":
        """From probabilities of shape (images, classes), in the order of `vocab`. Raises `DataError` for a label
        that is not in `vocab`."""
        vocab = [str(name) for name in vocab]
        check_labels(labels, vocab)
        truth = np.array([vocab.index(label) for label in labels], dtype=int)
        rows, best = np.arange(len(truth)), probabilities.argmax(1)
        table = pd.DataFrame({"path": pd.Series(list(paths), dtype=object), "label": list(labels)})
        table["prediction"] = [vocab[i] for i in best]
        table["correct"] = best == truth
        table["probability"] = probabilities[rows, best]
        table["loss"] = -np.log(np.maximum(probabilities[rows, truth], SMALLEST))
        columns = {f"{PROBABILITY}{name}": probabilities[:, index] for index, name in enumerate(vocab)}
        return cls(pd.concat([table, pd.DataFrame(columns)], axis=1), vocab)

    @classmethod
    def from_outputs(
        cls, paths: Sequence[str], outputs: Any, targets: Any, vocab: Sequence[str], output_range: Any = None
    ) -> "Evaluation":
        """From a network's logits and the class numbers that fastai made of the labels."""
        labels = [vocab[int(target)] for target in targets]
        return cls.from_probabilities(paths, labels, of(cls.task).activation(outputs).numpy(), vocab)

    @classmethod
    def from_predictions(
        cls, predictions: Sequence[Any], labels: Sequence[str], config: Mapping[str, Any]
    ) -> "Evaluation":
        """From a bundle's predictions (`kit.tasks.Prediction`, none with an error), the true labels and its config."""
        vocab = config["vocab"]
        probabilities = np.array([[one.probabilities[name] for name in vocab] for one in predictions])
        return cls.from_probabilities([one.path for one in predictions], labels, probabilities, vocab)

    @property
    def error_rate(self) -> Estimate:
        """The share of wrong predictions, with its 95 % Wilson interval."""
        return wilson(int((~self.predictions["correct"]).sum()), self.n)

    @property
    def headline(self) -> Estimate:
        """The error rate."""
        return self.error_rate

    @property
    def accuracy(self) -> Estimate:
        """The share of right predictions, with its 95 % Wilson interval."""
        return wilson(int(self.predictions["correct"].sum()), self.n)

    @property
    def probabilities(self) -> np.ndarray:
        """Shape (images, classes), in the order of `vocab`."""
        return self.predictions[[f"{PROBABILITY}{name}" for name in self.vocab]].to_numpy()

    @property
    def outputs(self) -> np.ndarray:
        """The probabilities."""
        return self.probabilities

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Numbers of images: a row for each true class, a column for each predicted class."""
        table = pd.crosstab(self.predictions["label"], self.predictions["prediction"])
        return table.reindex(index=self.vocab, columns=self.vocab, fill_value=0)

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """A row for each class: n, precision, recall, f1; NaN where they are not defined."""
        counts = self.confusion.to_numpy()
        right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = {"precision": right / predicted, "recall": right / true, "f1": 2 * right / (true + predicted)}
        return pd.DataFrame({"n": true} | shares, index=self.vocab)

    @property
    def breakdown(self) -> pd.DataFrame:
        """`per_class`."""
        return self.per_class

    def most_confused(self, least: int = 1) -> list[tuple[str, str, int]]:
        """(true, predicted, times) for every pair confused at least `least` times, most frequent first."""
        counts = self.confusion.to_numpy()
        places = [(true, predicted) for true, predicted in np.argwhere(counts >= least) if true != predicted]
        pairs = [(self.vocab[true], self.vocab[predicted], int(counts[true, predicted])) for true, predicted in places]
        return sorted(pairs, key=lambda pair: -pair[2])

    def confusion_cells(self, most: int = MOST_CELLS) -> list[list[int]]:
        """[true, predicted, times] for each cell of `confusion` that is not 0, row by row; classes by place in `vocab`.

        At most `most` of them, the most frequent, so that a thousand classes take no more room than seventy.
        """
        counts = self.confusion.to_numpy()
        rows, columns = np.nonzero(counts)
        kept = np.sort(np.argsort(-counts[rows, columns], kind="stable")[:most])
        return np.stack([rows, columns, counts[rows, columns]], 1)[kept].tolist()

    def again(self, outputs: np.ndarray) -> "Evaluation":
        """The evaluation of other probabilities of the same images."""
        return self.from_probabilities(self.predictions["path"], self.predictions["label"], outputs, self.vocab)

    def caption(self, row: Any) -> tuple[str, bool]:
        """The class and its probability; the true class where it is another."""
        predicted = f"{row.prediction} {percent(row.probability, 0)}"
        return (predicted if row.correct else f"{predicted}, is {row.label}"), bool(row.correct)

    def examples(self, count: int) -> pd.DataFrame:
        """Of each class the right prediction with the highest probability, then the next ones."""
        right = self.predictions[self.predictions["correct"]].sort_values("probability", ascending=False)
        rank = right.groupby("label").cumcount()
        return right.assign(rank=rank).sort_values("rank", kind="stable").head(count).drop(columns="rank")

    def mistakes(self, count: int) -> pd.DataFrame:
        """Of each pair of classes that were confused the mistake with the highest loss, then the next ones."""
        wrong = self.predictions[~self.predictions["correct"]].sort_values("loss", ascending=False, kind="stable")
        rank = wrong.groupby(["label", "prediction"]).cumcount()
        return wrong.assign(rank=rank).sort_values("rank", kind="stable").head(count).drop(columns="rank")

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; NaN becomes null."""
        return {
            "accuracy": self.accuracy.value,
            "loss": float(self.predictions["loss"].mean()),
            "f1_macro": float(np.nan_to_num(self.per_class["f1"]).mean()),
            "per_class": plain_json(self.per_class),
            "most_confused": self.most_confused()[:10],
            "confusion": self.confusion_cells(),
        }

    def lines(self) -> list[str]:
        """The result in words: the error rate, and the most confused classes."""
        lines = [f"error rate {self.error_rate}"]
        if pairs := self.most_confused()[:3]:
            texts = [f"{true} predicted as {predicted} ({times})" for true, predicted, times in pairs]
            lines.append(f"most confused: {'; '.join(texts)}")
        return lines + self.remarks()

    def answer_rules(self) -> dict[str, Any]:
        """The temperature that calibrates the probabilities, and the calibration error without and with it."""
        calibration = calibrate(self.probabilities, self._class_numbers())
        return {"temperature": calibration.temperature, "calibration": asdict(calibration)}

    def answered(self, rules: Mapping[str, Any]) -> "Evaluation":
        """The result with calibrated probabilities."""
        return replace(self.again(calibrated(self.probabilities, rules["temperature"])), missing=self.missing)

    def reliability(self) -> dict[str, Any]:
        """The reliability diagram of the probabilities (Guo et al., 2017): a dot for each tenth of them, and the
        expected calibration error."""
        table = self.predictions
        tenths = table.groupby(np.ceil(table["probability"] * BINS).clip(1, BINS))
        dots = tenths.agg(stated=("probability", "mean"), right=("correct", "mean"), share=("correct", "size"))
        dots["share"] /= len(table)
        return {"dots": dots.to_dict("records"), "error": calibration_error(self.probabilities, self._class_numbers())}

    def _class_numbers(self) -> np.ndarray:
        return np.array([self.vocab.index(label) for label in self.predictions["label"]])

    def draw_overview(self, folder: Path) -> Path:
        """The confusion matrix."""
        return draw_confusion(self, folder / "confusion.png")


def check_labels(labels: Sequence[str], vocab: Sequence[str]) -> None:
    """Raise `DataError` that names the labels that are not among the classes."""
    unknown = sorted(set(labels) - set(vocab))
    if unknown:
        problem = f"labels that the model never saw: {some_of(unknown)}; it knows: {some_of(vocab, 20)}"
        raise DataError(problem, fix="correct the labels (--label), or evaluate images of the known classes")
