"""What the recipe makes of the training loss: smoothed labels, weighted classes. Validation keeps plain cross entropy.

class_weights(["cat", "dog", "dog", "dog"], ["cat", "dog"])          # [2.0, 0.667]: both classes weigh the same
"""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from fastai.vision.all import (
    BCEWithLogitsLossFlat,
    Callback,
    CrossEntropyLossFlat,
    LabelSmoothingCrossEntropyFlat,
    Learner,
)

from kit.data.targets import classes_in
from kit.errors import RecipeError
from kit.recipe import Recipe
from kit.task import MULTILABEL


class TrainingLoss(Callback):
    """`loss_func` while training; the learner's own, plain cross entropy, while validating, and before and after.

    So the validation loss means the same with all recipes, and early stopping looks at what counts.
    """

    order = -5  # before mixup's callback, which wraps the loss that it finds and puts that back afterwards

    def __init__(self, loss_func: Callable):
        super().__init__()
        self.for_training = loss_func

    def before_fit(self) -> None:
        """Remember the learner's own."""
        self.plain = self.learn.loss_func

    def before_train(self) -> None:
        """The recipe's."""
        self.learn.loss_func = self.for_training

    def before_validate(self) -> None:
        """The learner's own."""
        self.learn.loss_func = self.plain

    def after_fit(self) -> None:
        """The learner's own, though training ended in the middle."""
        self.learn.loss_func = self.plain


def training_loss(learn: Learner, recipe: Recipe) -> Callable | None:
    """The recipe's training loss, or None where that is the learner's own.

    `RecipeError` for a learner with another loss than its task's: it cannot be told what smoothing means there.
    """
    if not recipe.label_smoothing and recipe.class_weights == "none":
        return None
    expected = BCEWithLogitsLossFlat if recipe.task == MULTILABEL else CrossEntropyLossFlat
    if not isinstance(learn.loss_func, expected):
        problem = f"label_smoothing and class_weights change cross entropy, and the loss is {learn.loss_func!r}"
        raise RecipeError(problem, fix="leave them out, or give a loss_func that does it")
    labels, vocab, weight = training_labels(learn), learn.dls.vocab, None
    if recipe.class_weights == "balanced":
        weights = presence_weights(labels, vocab) if recipe.task == MULTILABEL else class_weights(labels, vocab)
        weight = torch.tensor(weights, dtype=torch.float32, device=learn.dls.device)
    if recipe.task == MULTILABEL:
        return BCEWithLogitsLossFlat(pos_weight=weight)
    if recipe.label_smoothing:
        return LabelSmoothingCrossEntropyFlat(eps=recipe.label_smoothing, weight=weight)
    return CrossEntropyLossFlat(weight=weight)


def presence_weights(labels: Sequence[str], vocab: Sequence[str]) -> list[float]:
    """For each class of several: images without it / images with it, so that its presence weighs as its absence."""
    counts = classes_in(labels, MULTILABEL)
    return [(len(labels) - counts[name]) / max(1, counts[name]) for name in vocab]


def class_weights(labels: Sequence[str], vocab: Sequence[str]) -> list[float]:
    """A weight for each class of `vocab`: images / (classes x images of the class), so that they average 1 an image."""
    counts = Counter(labels)
    return [len(labels) / (len(vocab) * max(1, counts[name])) for name in vocab]


def training_labels(learn: Learner) -> list[str]:
    """The label of each training image."""
    return learn.dls.train_ds.items["label"].tolist()
