"""The training loss of a recipe: label smoothing, class weights. Validation uses the learner's own loss.

learn.fit(1, cbs=TrainingLoss(training_loss(learn, recipe)))
"""

from collections.abc import Callable

import torch
from fastai.vision.all import Callback, Learner

from kit.errors import RecipeError
from kit.recipe import Recipe
from kit.tasks.training import training_of


class TrainingLoss(Callback):
    """Uses `loss_func` for training batches, and the learner's own loss for validation and after training.

    The validation loss, which early stopping watches, so has the same meaning for all recipes.
    """

    order = -5  # before mixup's callback, which wraps the current loss and restores it afterwards

    def __init__(self, loss_func: Callable):
        super().__init__()
        self.for_training = loss_func

    def before_fit(self) -> None:
        """Store the learner's own loss."""
        self.plain = self.learn.loss_func

    def before_train(self) -> None:
        """Set the training loss."""
        self.learn.loss_func = self.for_training

    def before_validate(self) -> None:
        """Restore the learner's own loss."""
        self.learn.loss_func = self.plain

    def after_fit(self) -> None:
        """Restore the learner's own loss, also after an early end."""
        self.learn.loss_func = self.plain


def training_loss(learn: Learner, recipe: Recipe) -> Callable | None:
    """The recipe's training loss, or None where that is the learner's own.

    `RecipeError` for a learner with another loss than its task's: it cannot be told what smoothing means there.
    """
    if not recipe.label_smoothing and recipe.class_weights == "none":
        return None
    training, labels, vocab = training_of(recipe.task), training_labels(learn), learn.dls.vocab
    if not isinstance(learn.loss_func, type(training.loss())):
        problem = f"label_smoothing and class_weights change cross entropy, and the loss is {learn.loss_func!r}"
        raise RecipeError(problem, fix="leave them out, or give a loss_func that does it")
    weight = None
    if recipe.class_weights == "balanced":
        weight = torch.tensor(training.class_weights(labels, vocab), dtype=torch.float32, device=learn.dls.device)
    return training.training_loss(weight, recipe.label_smoothing)


def training_labels(learn: Learner) -> list[str]:
    """The label of each training image."""
    return learn.dls.train_ds.items["label"].tolist()
