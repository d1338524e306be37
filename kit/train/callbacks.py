"""From the recipe's fields to fastai's callbacks.

learn.fine_tune(3, cbs=training_callbacks(learn, recipe))
"""

from fastai.vision.all import Callback, CutMix, GradientAccumulation, GradientClip, Learner, MixUp

from kit.errors import RecipeError
from kit.model.build import spec_of
from kit.model.heads import LINEAR
from kit.recipe import Recipe
from kit.train.losses import TrainingLoss, training_loss
from kit.train.progressive import growing
from kit.train.stopping import BestWeights, StopEarly


class Accumulation(GradientAccumulation):
    """fastai's GradientAccumulation; what one phase gathered but never took a step with does not leak into the next."""

    def before_fit(self) -> None:
        """Begin with nothing gathered."""
        super().before_fit()
        self.model.zero_grad()


def training_callbacks(learn: Learner, recipe: Recipe, accumulate: int | None = None) -> list[Callback]:
    """All callbacks that the recipe's fields ask for; `accumulate` where it is another than the recipe's.

    Raises `RecipeError` where accumulation gathers more batches than there are, so that no step might ever be taken.
    """
    callbacks, accumulate = batch_callbacks(learn, recipe), accumulate or recipe.accumulate
    if accumulate > len(learn.dls.train):
        problem = f"accumulate={accumulate} gathers more batches than the {len(learn.dls.train)} of an epoch"
        raise RecipeError(problem, fix=f"--accumulate {len(learn.dls.train)} or less, or a smaller --batch")
    if accumulate > 1:
        callbacks.append(Accumulation(accumulate * learn.dls.train.bs))
    if recipe.progressive:
        frozen = 0 if spec_of(learn).head == LINEAR else recipe.freeze_epochs
        callbacks.append(growing(learn, recipe.size, frozen + recipe.epochs))
    if recipe.patience:
        callbacks += [StopEarly(patience=recipe.patience), BestWeights()]
    return callbacks


def batch_callbacks(learn: Learner, recipe: Recipe) -> list[Callback]:
    """Those of them that change what a batch is and how its gradient is taken: the rate finder needs them too."""
    loss = training_loss(learn, recipe)
    wanted = (
        (loss, lambda: TrainingLoss(loss)),
        (recipe.mixup, lambda: MixUp(recipe.mixup)),
        (recipe.cutmix, lambda: CutMix(recipe.cutmix)),
        (recipe.clip, lambda: GradientClip(recipe.clip)),
    )
    return [make() for asked, make in wanted if asked]
