"""The fastai callbacks that a recipe's fields ask for.

learn.fine_tune(3, cbs=training_callbacks(learn, recipe))
"""

from fastai.vision.all import Callback, CutMix, GradientAccumulation, GradientClip, Learner, MixUp

from kit.errors import RecipeError
from kit.model.build import spec_of
from kit.model.heads import LINEAR
from kit.recipe import Recipe
from kit.train.losses import TrainingLoss, training_loss
from kit.train.progressive import progressive_resizing
from kit.train.stopping import BestWeights, StopEarly


class Accumulation(GradientAccumulation):
    """fastai's GradientAccumulation; gradients left over at the end of a phase are not used in the next."""

    def before_fit(self) -> None:
        """Reset the gradients."""
        super().before_fit()
        self.model.zero_grad()


def training_callbacks(learn: Learner, recipe: Recipe, accumulate: int | None = None) -> list[Callback]:
    """All callbacks for the recipe's fields. accumulate: batches a step, by default the recipe's.

    Raises `RecipeError` where that is more batches than an epoch has, so that no step might ever be taken.
    """
    callbacks, accumulate = batch_callbacks(learn, recipe), accumulate or recipe.accumulate
    if accumulate > len(learn.dls.train):
        problem = f"accumulate={accumulate} gathers more batches than the {len(learn.dls.train)} of an epoch"
        raise RecipeError(problem, fix=f"--accumulate {len(learn.dls.train)} or less, or a smaller --batch")
    if accumulate > 1:
        callbacks.append(Accumulation(accumulate * learn.dls.train.bs))
    if recipe.progressive:
        frozen = 0 if spec_of(learn).head == LINEAR else recipe.freeze_epochs
        callbacks.append(progressive_resizing(learn, recipe.size, frozen + recipe.epochs))
    if recipe.patience:
        callbacks += [StopEarly(patience=recipe.patience), BestWeights()]
    return callbacks


def batch_callbacks(learn: Learner, recipe: Recipe) -> list[Callback]:
    """The callbacks that change batches, loss or gradients; the learning-rate finder uses them too."""
    loss = training_loss(learn, recipe)
    wanted = (
        (loss, lambda: TrainingLoss(loss)),
        (recipe.mixup, lambda: MixUp(recipe.mixup)),
        (recipe.cutmix, lambda: CutMix(recipe.cutmix)),
        (recipe.clip, lambda: GradientClip(recipe.clip)),
    )
    return [make() for value, make in wanted if value]
