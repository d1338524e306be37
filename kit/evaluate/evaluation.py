"""From a learner, or from probabilities, to an Evaluation: the predictions table and everything derived from it.

result = evaluate(learn); result.error_rate      # 0.0541 (n=74, 95 % 0.0212-0.1308)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kit.errors import DataError, TrainingError, some_of
from kit.evaluate.result import PROBABILITY, Result, plain_json
from kit.intervals import Estimate, wilson
from kit.machine import exact_convolutions, heap_kept
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION, percent

SMALLEST = 1e-12
MOST_CELLS = 5_000
MOST_KEPT = 200  # images whose features stay with a result


@dataclass(frozen=True)
class Evaluation(Result):
    """Predictions of one class each. `predictions`: one row an image with path, label, prediction, correct,
    probability (of the prediction), loss (cross entropy, nats), and p_CLASS for each class; `vocab`: the classes."""

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

    @property
    def breakdown(self) -> pd.DataFrame:
        """`per_class`."""
        return self.per_class

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

    def again(self, outputs: np.ndarray) -> "Evaluation":
        """The evaluation of other probabilities of the same images."""
        return self.from_probabilities(self.predictions["path"], self.predictions["label"], outputs, self.vocab)

    def caption(self, row: Any) -> tuple[str, bool]:
        """The class and how sure it was; below it the truth where that is another."""
        said = f"{row.prediction} {percent(row.probability, 0)}"
        return (said if row.correct else f"{said}, is {row.label}"), bool(row.correct)

    def examples(self, count: int) -> pd.DataFrame:
        """The surest right prediction of each class, then the next, most sure first."""
        right = self.predictions[self.predictions["correct"]].sort_values("probability", ascending=False)
        turn = right.groupby("label").cumcount()
        return right.assign(turn=turn).sort_values("turn", kind="stable").head(count).drop(columns="turn")

    def mistakes(self, count: int) -> pd.DataFrame:
        """Of each pair of classes that were confused the worst mistake, then the next."""
        wrong = self.predictions[~self.predictions["correct"]].sort_values("loss", ascending=False, kind="stable")
        turn = wrong.groupby(["label", "prediction"]).cumcount()
        return wrong.assign(turn=turn).sort_values("turn", kind="stable").head(count).drop(columns="turn")

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
        """The result in words: the error rate, what was confused, and whether so few images can tell."""
        lines = [f"error rate {self.error_rate}"]
        if pairs := self.most_confused()[:3]:
            lines.append(
                "most confused: " + "; ".join(f"{true} taken for {said} ({times})" for true, said, times in pairs)
            )
        return lines + self.remarks()


def check_labels(labels: Sequence[str], vocab: Sequence[str]) -> None:
    """Raise `DataError` that names the labels that are not among the classes."""
    unknown = sorted(set(labels) - set(vocab))
    if unknown:
        problem = f"labels that the model never saw: {some_of(unknown)}; it knows: {some_of(vocab, 20)}"
        raise DataError(problem, fix="correct the labels (--label), or evaluate images of the known classes")


def evaluate(learn: Any, rows: pd.DataFrame | None = None) -> Result:
    """Predict the validation images of a fastai Learner, or labelled `rows` of a table, in fp32, and compare.

    The learner's logits become probabilities by a softmax, or of several classes an image by a sigmoid. A learner of
    kit's own on kit's own images is evaluated by the features of its body, which the cache may know; of some images
    they are kept with the result, for a bundle. TF32 is off meanwhile, so that a GPU and a CPU agree.
    """
    from torch import nn

    from kit.model.build import prepared_by_kit

    loader = learn.dls.valid if rows is None else learn.dls.test_dl(rows, with_labels=True)
    spec = getattr(learn, "spec", None)
    if spec is not None and type(learn.model) is nn.Sequential and prepared_by_kit(loader, spec.weights):
        return _from_features(learn, loader)
    with learn.no_bar(), learn.no_logging(), heap_kept(), exact_convolutions():
        outputs, targets = learn.get_preds(dl=loader, act=lambda output: output)
    return result_of(learn, _paths(loader.items), outputs, targets)


def _from_features(learn: Any, loader: Any) -> Result:
    """The result of a learner's body and head, from features of the body."""
    import torch

    from kit.model.build import features_of
    from kit.model.heads import classifier

    table, labels = loader.items, loader.dataset.tls[1]
    features = features_of(learn, table)
    with torch.inference_mode():
        outputs = classifier(learn.model.eval())(torch.from_numpy(features).to(learn.dls.device)).cpu()
    targets = torch.stack([labels[number] for number in range(len(table))])
    some, paths = evenly(len(table), MOST_KEPT), _paths(table)
    return replace(result_of(learn, paths, outputs, targets), features={paths[one]: features[one] for one in some})


def evenly(count: int, most: int) -> np.ndarray:
    """The numbers of at most `most` of `count` rows, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def result_of(learn: Any, paths: Sequence[str], outputs: Any, targets: Any) -> Result:
    """The result of a learner's outputs (images, outputs) and the targets that fastai made of the labels.

    Raises `TrainingError` where outputs are not finite.
    """
    import torch

    from kit.evaluate.multilabel import MultiLabelEvaluation
    from kit.evaluate.regression import RegressionEvaluation

    if not torch.isfinite(outputs).all():
        fix = "train with a lower rate, for example a tenth of it (--rate)"
        raise TrainingError("the network's outputs are not finite: training diverged", fix=fix)
    outputs = outputs.double()
    spec, vocab = getattr(learn, "spec", None), [str(name) for name in learn.dls.vocab]
    task = spec.recipe.task if spec else CLASSIFICATION
    if task == REGRESSION:
        width = (spec.output_range.high - spec.output_range.low).tolist()
        return RegressionEvaluation.from_numbers(paths, targets.double().numpy(), outputs.numpy(), vocab, width)
    if task == MULTILABEL:
        return MultiLabelEvaluation.from_probabilities(paths, targets.numpy() > 0, outputs.sigmoid().numpy(), vocab)
    labels = [vocab[int(target)] for target in targets]
    return Evaluation.from_probabilities(paths, labels, outputs.softmax(1).numpy(), vocab)


def result_of_predictions(predictions: Sequence[Any], labels: Sequence[str], config: Mapping[str, Any]) -> Result:
    """The result of a bundle's predictions, none with an error, against label texts; `config` is the bundle's.

    Raises `DataError` where there is no prediction.
    """
    from kit.evaluate.multilabel import MultiLabelEvaluation
    from kit.evaluate.regression import RegressionEvaluation

    if not predictions:
        raise DataError("no image could be predicted", fix="give a folder with labelled images that open")
    vocab = config["vocab"]
    if config["task"] == REGRESSION:
        width = np.subtract(config["range"]["high"], config["range"]["low"])
        return RegressionEvaluation.from_predictions(predictions, labels, vocab, width)
    if config["task"] == MULTILABEL:
        return MultiLabelEvaluation.from_predictions(predictions, labels, vocab, config["thresholds"])
    return Evaluation.from_predictions(predictions, labels, vocab)


def _paths(items: Any) -> list[str]:
    return items["path"].tolist() if isinstance(items, pd.DataFrame) else [str(item) for item in items]
