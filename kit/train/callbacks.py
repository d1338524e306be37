"""fastai callbacks for a recipe's fields: training loss, progressive resizing, early stopping, and more.

learn.fine_tune(3, cbs=training_callbacks(learn, recipe))
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

import torch
from fastai.vision.all import (
    Callback,
    CancelFitException,
    CutMix,
    EarlyStoppingCallback,
    GradientAccumulation,
    GradientClip,
    Learner,
    MixUp,
    TrackerCallback,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

from kit import processes
from kit.console import say
from kit.errors import RecipeError, TrainingError, first_line
from kit.model.build import spec_of
from kit.model.heads import LINEAR
from kit.recipe import Recipe
from kit.tasks.training import training_of
from kit.train.history import History
from kit.train.precision import MIN_BF16_SIZE

SMALLEST = 0.5  # of the full size, at the first step
FULL_FROM = 0.75  # of all steps; from then on images have full size
STEP = 16  # pixels
LEAST_BATCHES = 0.8


class TrainingLoss(Callback):
    """Uses `loss_func` for training batches, and the learner's own loss for validation and after training.

    The validation loss, which early stopping watches, so has the same meaning for all recipes.
    """

    order = -5  # before mixup's callback, which wraps the current loss and restores it afterwards

    def __init__(self, loss_func: Callable):
        super().__init__()
        self.for_training = loss_func

    def before_fit(self) -> None:
        self.plain = self.learn.loss_func

    def before_train(self) -> None:
        self.learn.loss_func = self.for_training

    def before_validate(self) -> None:
        self.learn.loss_func = self.plain

    def after_fit(self) -> None:
        """Restore the learner's own loss, also after an early end."""
        self.learn.loss_func = self.plain


def training_loss(learn: Learner, recipe: Recipe) -> Callable | None:
    """The recipe's training loss, or None where that is the learner's own.

    Raises `RecipeError` for a learner with another loss than its task's, to which these settings do not apply.
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


class ProgressiveResizing(Callback):
    """Downsizes training batches, starting with half of `size`; validation has full size. epochs: of all phases.

    Source: Howard, "Training ImageNet in 3 hours for $25", fast.ai 2018; Tan, Le, EfficientNetV2, ICML 2021.
    """

    order = 95  # after mixup and cutmix
    run_valid = False
    checkpointed = ("done",)

    def __init__(self, size: int, epochs: int):
        super().__init__()
        self.size, self.epochs, self.done = size, epochs, 0

    def before_batch(self) -> None:
        side = side_at((self.done + self.iter / self.n_iter) / self.epochs, self.size)
        if side < self.size:
            self.learn.xb = tuple(downsize(x, side) for x in self.xb)

    def after_epoch(self) -> None:
        self.done += 1


def side_at(progress: float, size: int) -> int:
    """The image size in pixels a side after the share `progress` (0 to 1) of all steps."""
    share = SMALLEST + (1 - SMALLEST) * progress / FULL_FROM
    return size if share >= 1 else min(size, max(MIN_BF16_SIZE, int(share * size / STEP) * STEP))


def downsize(images: Tensor, side: int) -> Tensor:
    """Images (n, 3, h, w) to (n, 3, side, side), with antialiasing."""
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def progressive_resizing(learn: Learner, size: int, epochs: int) -> ProgressiveResizing:
    """The callback. Raises `RecipeError` where the network does not accept the smallest images."""
    side, training = side_at(0, size), learn.model.training
    try:
        with torch.no_grad():
            learn.model.eval()(torch.zeros(2, 3, side, side, device=learn.dls.device))
    except Exception as error:
        problem = f"progressive=True begins with {side} x {side} pixels, which this network refuses"
        raise RecipeError(f"{problem} ({first_line(error)})", fix="leave it out, or choose a ResNet") from error
    finally:
        learn.model.train(training)
    return ProgressiveResizing(size, epochs)


class StopEarly(EarlyStoppingCallback):
    """fastai's EarlyStoppingCallback with a message on standard error. Each phase counts its own epochs."""

    checkpointed = ("best", "wait")

    def after_epoch(self) -> None:
        """End this phase where the validation loss no longer improves."""
        stop = False
        try:
            with redirect_stdout(io.StringIO()):
                super().after_epoch()
        except CancelFitException:
            stop = True
        if processes.first(lambda: stop):
            say(f"early stopping: the validation loss was not lower for {self.patience} epochs (--patience)")
            raise CancelFitException


class BestWeights(TrackerCallback):
    """fastai's SaveModelCallback over both phases and in memory: no file, no pickle, nothing printed.

    A phase starts from the best weights of the phase before. A loss of NaN is never the best.
    """

    order = TrackerCallback.order + 1
    checkpointed = ("best", "best_state")

    def __init__(self):
        super().__init__(monitor="valid_loss", reset_on_fit=False)
        self.best_state: dict[str, Tensor] = {}

    def after_epoch(self) -> None:
        """Copy the weights where the validation loss is the lowest so far."""
        super().after_epoch()
        if self.new_best:
            self.best_state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def after_fit(self) -> None:
        super().after_fit()
        self.load_best(self.model)

    def load_best(self, model: nn.Module) -> None:
        """Load the best weights into `model`, where an epoch has ended."""
        if self.best_state:
            model.load_state_dict(self.best_state)


@contextmanager
def best_weights_kept(model: nn.Module, callbacks: Iterable[Callback]) -> Iterator[None]:
    """Loads the best weights after an interruption too, for which fastai does not call `after_fit`."""
    try:
        yield
    except BaseException:
        for callback in callbacks:
            if isinstance(callback, BestWeights):
                callback.load_best(model)
        raise


class Stop(BaseException):
    """Ends training at once. Not an `Exception`, because fastai would change its text. error: for the user."""

    def __init__(self, error: TrainingError):
        super().__init__(str(error))
        self.error = error


class StopAtNonFinite(Callback):
    """Checks each loss and the batch-norm statistics before backward, and each gradient before the step.

    Weights and batch-norm statistics keep their values from before the failing step. The cost is reading each gradient
    once: 0.3 % of a step of resnet18 on a CPU.
    """

    order = 15  # after accumulation, unscaling (fp16) and clipping of gradients

    def __init__(self, history: History, rate: float):
        super().__init__()
        self.history, self.highest_rate = history, rate

    def before_batch(self) -> None:
        """Copy the batch-norm statistics, which the forward pass changes."""
        if self.training:
            self.statistics = [buffer.clone() for buffer in self.model.buffers()]

    def after_loss(self) -> None:
        """Stop where the loss or a batch-norm statistic is not finite.

        An infinite variance turns activations to 0, so that the loss alone would not show the failure.
        """
        loss = self.learn.loss.detach().mean().float()
        if not self.training:
            return self._check("validation loss", float(loss))
        statistics = [buffer for buffer in self.model.buffers() if buffer.is_floating_point() and buffer.numel()]
        largest = (
            torch.stack(torch._foreach_norm(statistics, float("inf"))).max() if statistics else torch.zeros_like(loss)
        )
        loss, largest = torch.stack([loss, largest.float()]).tolist()  # one synchronisation with a GPU instead of two
        self._check("loss", loss)
        self._check("largest of batch norm's statistics", *processes.total(largest))  # each process has its own

    def before_step(self) -> None:
        """Stop where a gradient is not finite."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self._check("gradient's norm", float(get_total_norm(gradients)))

    def _check(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        if self.training:
            with torch.no_grad():
                for buffer, before in zip(self.model.buffers(), self.statistics, strict=True):
                    buffer.copy_(before)
        step, epoch = len(self.history.steps) + self.training, len(self.history.rows) + 1
        where = f"at step {step} (epoch {epoch}, {self.history.phase})"
        rate = self.opt.hypers[-1]["lr"]
        problem = f"the {what} became {value} {where} at the rate {rate:.2g}; training stopped before that step"
        fix = (
            f"a lower rate: --rate {self.highest_rate / 10:.2g} (highest here: {self.highest_rate:.2g}), or --rate auto"
        )
        if step == 1:
            fix = f"no step was taken yet, so look at the images and the loss first, --precision fp32; then {fix}"
        raise Stop(TrainingError(problem, fix=fix))


class StopWithoutImages(Callback):
    """Stops where an epoch had less than four fifths of its batches, because images can no longer be opened."""

    def before_train(self) -> None:
        """No batch yet; one that goes on from a checkpoint has had some."""
        self.learn.iter = -1

    before_validate = before_train

    def after_cancel_train(self) -> None:
        """Another callback ended the epoch early."""
        self.learn.iter = self.n_iter

    def after_train(self) -> None:
        """Raise where too many are missing."""
        # Each loading process drops its last batch where that is not full.
        dropped = max(1, self.dl.fake_l.num_workers) if self.dl.drop_last else 0
        if self.iter + 1 < LEAST_BATCHES * self.n_iter - dropped:
            problem = f"images can no longer be opened: they filled {self.iter + 1} of {self.n_iter} batches"
            raise Stop(TrainingError(problem, fix="make them readable again, for example connect their drive"))

    after_validate = after_train


class Accumulation(GradientAccumulation):
    """fastai's GradientAccumulation; gradients left over at the end of a phase are not used in the next.

    n_acc: the images a step of this process.
    """

    checkpointed = ("done",)

    def before_fit(self) -> None:
        super().before_fit()
        self.model.zero_grad()

    @property
    def done(self) -> float:
        """The share of a step's images that were counted, which does not depend on the number of processes."""
        return self.count / self.n_acc

    @done.setter
    def done(self, share: float) -> None:
        self.count = round(share * self.n_acc)


def training_callbacks(learn: Learner, recipe: Recipe, accumulate: int | None = None) -> list[Callback]:
    """All callbacks for the recipe's fields. accumulate: batches a step, by default the recipe's.

    Raises `RecipeError` where that is more batches than an epoch has, so that no step might ever be taken.
    """
    callbacks, accumulate = batch_callbacks(learn, recipe), accumulate or recipe.accumulate
    if accumulate > len(learn.dls.train):
        problem = f"accumulate={accumulate} gathers more batches than the {len(learn.dls.train)} of an epoch"
        raise RecipeError(problem, fix=f"--accumulate {len(learn.dls.train)} or less, or a smaller --batch")
    if accumulate > 1:
        part = processes.share(learn.dls.train.bs)
        callbacks.append(Accumulation(accumulate * (part.stop - part.start)))
    if recipe.progressive:
        frozen = 0 if spec_of(learn).head == LINEAR else recipe.freeze_epochs
        callbacks.append(progressive_resizing(learn, recipe.input_size, frozen + recipe.epochs))
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
