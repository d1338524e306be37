"""What training lowers and what it reports, by task: the losses and the metrics of a Learner.

learn = Learner(dls, network, loss_func=loss_of("multilabel"), metrics=metrics_of("multilabel", 20))
"""

from collections.abc import Callable

import numpy as np
from fastai.vision.all import AccumMetric, BCEWithLogitsLossFlat, CrossEntropyLossFlat, accuracy, error_rate
from torch import Tensor, nn

from kit import scores
from kit.model.heads import Range
from kit.task import CLASSIFICATION, HALF, MULTILABEL


class RangeLoss(nn.Module):
    """The mean squared error of numbers, each measured in the width of its range, so that all targets count alike."""

    def __init__(self, limits: Range):
        super().__init__()
        self.register_buffer("width", (limits.high - limits.low).clone())

    def forward(self, numbers: Tensor, truth: Tensor) -> Tensor:
        """numbers, truth (n, targets) -> a scalar."""
        # fastai's kinds of tensors are left behind: they would refuse each other.
        gaps = (numbers.as_subclass(Tensor) - truth.as_subclass(Tensor)) / self.width.to(numbers.device)
        return gaps.square().mean()


def loss_of(task: str, limits: Range | None = None) -> Callable:
    """The loss of a task: cross entropy, binary cross entropy of each class, or the squared error of numbers."""
    if task == CLASSIFICATION:
        return CrossEntropyLossFlat()
    return BCEWithLogitsLossFlat() if task == MULTILABEL else RangeLoss(limits)


def metrics_of(task: str, outputs: int) -> list[Callable]:
    """What a line an epoch tells of the validation images."""
    if task == CLASSIFICATION:
        return [error_rate, accuracy]
    if task == MULTILABEL:
        return [_metric(f1_at_half, "sigmoid"), _metric(scores.mean_average_precision, "sigmoid")]
    return [_metric(mean_r2), *([_metric(mean_mae)] if outputs == 1 else [])]


def f1_at_half(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The mean F1 of the classes, each said where its probability is over a half."""
    return scores.mean_f1(probabilities > HALF, truth)


def mean_r2(numbers: np.ndarray, truth: np.ndarray) -> float:
    """The mean R2 of the targets."""
    return float(scores.r2(numbers, truth).mean())


def mean_mae(numbers: np.ndarray, truth: np.ndarray) -> float:
    """The mean absolute error."""
    return float(scores.mae(numbers, truth).mean())


def _metric(function: Callable, activation: str = "no") -> AccumMetric:
    """A score of all validation images at once, as a metric of fastai's."""
    return AccumMetric(function, activation=activation, to_np=True, flatten=False)
