"""From a learner, or from probabilities, to an Evaluation: the predictions table and everything derived from it.

result = evaluate(learn); result.error_rate      # 0.0541 (n=74, 95 % 0.0212-0.1308)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kit.errors import DataError, TrainingError, some_of
from kit.intervals import Estimate, too_small, wilson

PROBABILITY = "p_"
SMALLEST = 1e-12
MOST_CELLS = 5_000


@dataclass(frozen=True)
class Evaluation:
    """Predictions on labelled images. `predictions`: one row an image with path, label, prediction, correct,
    probability (of the prediction), loss (cross entropy, nats), and p_CLASS for each class; `vocab`: the classes."""

    predictions: pd.DataFrame
    vocab: list[str]

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
        table = pd.DataFrame({"path": list(paths), "label": list(labels), "prediction": [vocab[i] for i in best]})
        table["correct"] = best == truth
        table["probability"] = probabilities[rows, best]
        table["loss"] = -np.log(np.maximum(probabilities[rows, truth], SMALLEST))
        columns = {f"{PROBABILITY}{name}": probabilities[:, index] for index, name in enumerate(vocab)}
        return cls(pd.concat([table, pd.DataFrame(columns)], axis=1), vocab)

    @classmethod
    def from_predictions(cls, predictions: Sequence[Any], labels: Sequence[str], vocab: Sequence[str]) -> "Evaluation":
        """From a bundle's predictions (`kit.bundle.Prediction`, none with an error) and the true labels."""
        if not predictions:
            raise DataError("no image could be predicted", fix="give a folder with labelled images that open")
        probabilities = np.array([[one.probabilities[name] for name in vocab] for one in predictions])
        return cls.from_probabilities([one.path for one in predictions], labels, probabilities, vocab)

    @property
    def n(self) -> int:
        """How many images were predicted."""
        return len(self.predictions)

    @property
    def error_rate(self) -> Estimate:
        """The share of wrong predictions, with its 95 % Wilson interval."""
        return wilson(int((~self.predictions["correct"]).sum()), self.n)

    @property
    def accuracy(self) -> Estimate:
        """The share of right predictions, with its 95 % Wilson interval."""
        return wilson(int(self.predictions["correct"].sum()), self.n)

    @property
    def probabilities(self) -> np.ndarray:
        """Shape (images, classes), in the order of `vocab`."""
        return self.predictions[[f"{PROBABILITY}{name}" for name in self.vocab]].to_numpy()

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Counts: a row a true class, a column a predicted class."""
        table = pd.crosstab(self.predictions["label"], self.predictions["prediction"])
        return table.reindex(index=self.vocab, columns=self.vocab, fill_value=0)

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """A row a class: n, precision, recall, f1; where nothing was predicted or nothing was there, NaN."""
        counts = self.confusion.to_numpy()
        right, there, said = counts.diagonal(), counts.sum(1), counts.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = {"n": there, "precision": right / said, "recall": right / there, "f1": 2 * right / (there + said)}
        return pd.DataFrame(columns, index=self.vocab)

    def most_confused(self, least: int = 1) -> list[tuple[str, str, int]]:
        """(true, predicted, times) for every pair confused at least `least` times, most frequent first."""
        counts = self.confusion.to_numpy()
        places = [(true, said) for true, said in np.argwhere(counts >= least) if true != said]
        pairs = [(self.vocab[true], self.vocab[said], int(counts[true, said])) for true, said in places]
        return sorted(pairs, key=lambda pair: -pair[2])

    def confusion_cells(self, most: int = MOST_CELLS) -> list[list[int]]:
        """[true, predicted, times] for each cell of `confusion` that is not 0, row by row; classes by place in `vocab`.

        At most `most` of them, the most frequent, so that a thousand classes take no more room than seventy.
        """
        counts = self.confusion.to_numpy()
        rows, columns = np.nonzero(counts)
        kept = np.sort(np.argsort(-counts[rows, columns], kind="stable")[:most])
        return np.stack([rows, columns, counts[rows, columns]], 1)[kept].tolist()

    def top_losses(self, count: int = 9) -> pd.DataFrame:
        """The rows with the highest loss: what the model got most wrong."""
        return self.predictions.nlargest(count, "loss")

    def figures(self) -> dict[str, float]:
        """The error rate, its n, and both ends of its interval, for programs."""
        rate = self.error_rate
        return {"error_rate": rate.value, "n": rate.n, "low": rate.low, "high": rate.high}

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; NaN becomes null."""
        table = self.per_class.astype(object).where(self.per_class.notna(), None)
        per_class = {
            label: {k: v if v is None else round(float(v), 6) for k, v in row.items()} for label, row in table.T.items()
        }
        return {
            "accuracy": self.accuracy.value,
            "loss": float(self.predictions["loss"].mean()),
            "f1_macro": float(np.nan_to_num(self.per_class["f1"]).mean()),
            "per_class": per_class,
            "most_confused": self.most_confused()[:10],
            "confusion": self.confusion_cells(),
        }

    def lines(self) -> list[str]:
        """The result in words: the error rate, what was confused, and whether so few images can tell."""
        lines = [f"error rate {self.error_rate}"]
        if pairs := self.most_confused()[:3]:
            lines.append(
                "most confused: " + "; ".join(f"{true} taken for {said} ({times})" for true, said, times in pairs)
            )
        small = too_small(self.n)
        return [*lines, f"note: {small}"] if small else lines


def check_labels(labels: Sequence[str], vocab: Sequence[str]) -> None:
    """Raise `DataError` that names the labels that are not among the classes."""
    unknown = sorted(set(labels) - set(vocab))
    if unknown:
        problem = f"labels that the model never saw: {some_of(unknown)}; it knows: {some_of(vocab, 20)}"
        raise DataError(problem, fix="correct the labels (--label), or evaluate images of the known classes")


def evaluate(learn: Any, rows: pd.DataFrame | None = None) -> Evaluation:
    """Predict the validation images of a fastai Learner, or labelled `rows` of a table, in fp32, and compare.

    The learner's logits become probabilities by a softmax. TF32 is off meanwhile, so that a GPU and a CPU agree.
    """
    import torch

    loader = learn.dls.valid if rows is None else learn.dls.test_dl(rows, with_labels=True)
    with learn.no_bar(), learn.no_logging(), exact_convolutions():
        logits, targets = learn.get_preds(dl=loader, act=lambda output: output)
    if not torch.isfinite(logits).all():
        fix = "train with a lower rate, for example a tenth of it (--rate)"
        raise TrainingError("the network's outputs are not finite: training diverged", fix=fix)
    probabilities = torch.softmax(logits.double(), dim=1).numpy()
    vocab = [str(name) for name in learn.dls.vocab]
    labels = [vocab[int(target)] for target in targets]
    return Evaluation.from_probabilities(_paths(loader.items), labels, probabilities, vocab)


def _paths(items: Any) -> list[str]:
    return items["path"].tolist() if isinstance(items, pd.DataFrame) else [str(item) for item in items]


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in full fp32 on a GPU."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
