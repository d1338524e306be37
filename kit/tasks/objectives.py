"""The parts of fastai that a task is trained with: label readers, losses and metrics; `training.py` uses them.

Learner(dls, network, loss_func=RangeLoss(output_range), metrics=[metric(mean_r2)])
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from fastai.vision.all import AccumMetric, RegressionSetup
from torch import Tensor, nn

from kit import scores
from kit.tasks.text import HALF, classes_of, numbers_of


# fastai calls these with a row of the table. They have no annotations, by which fastai would convert what they return.
def image_label(row):
    """The label of a table's row."""
    return row["label"]


def image_classes(row):
    """The classes of a table's row."""
    return classes_of(row["label"])


def image_numbers(row):
    """The numbers of a table's row."""
    return numbers_of(row["label"])


class Numbers(RegressionSetup):
    """The numbers of a row as a float32 tensor (targets,); `vocab` holds their names."""

    def setups(self, rows) -> None:
        """Take the number of targets and their names from the table."""
        super().setups(rows)
        table = getattr(rows, "items", None)
        self.vocab = getattr(table, "attrs", {}).get("names") or [f"value_{place}" for place in range(self.c)]


class RangeLoss(nn.Module):
    """The mean squared error of numbers, each divided by the width of its range, so that all targets weigh the same.

    output_range: a `kit.model.heads.Range`.
    """

    def __init__(self, output_range: Any):
        super().__init__()
        self.register_buffer("width", (output_range.high - output_range.low).clone())

    def forward(self, numbers: Tensor, truth: Tensor) -> Tensor:
        """numbers, truth (n, targets) -> a scalar."""
        # Plain tensors: fastai's subclasses cannot be subtracted from each other.
        gaps = (numbers.as_subclass(Tensor) - truth.as_subclass(Tensor)) / self.width.to(numbers.device)
        return gaps.square().mean()


def f1_at_half(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The mean F1 of the classes, each predicted where its probability is above 0.5."""
    return scores.mean_f1(probabilities > HALF, truth)


def mean_r2(numbers: np.ndarray, truth: np.ndarray) -> float:
    """The mean R2 of the targets."""
    return float(scores.r2(numbers, truth).mean())


def mean_mae(numbers: np.ndarray, truth: np.ndarray) -> float:
    """The mean absolute error of the targets."""
    return float(scores.mae(numbers, truth).mean())


def metric(function: Callable, activation: str = "no") -> AccumMetric:
    """A score of all validation images together as a fastai metric; function: (outputs, truth) -> float."""
    return AccumMetric(function, activation=activation, to_np=True, flatten=False)
