"""Transfer learning: a linear head from features first, then all layers where a trial shows that they are better.

transfer(learn, recipe, history, ...)      # what `fine_tune` does for layers=auto, head and all

Training all layers can distort good features (Kumar et al., "Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution", ICLR 2022). Measured here with ImageNet weights and a few hundred images: batch
norms in training mode on small, augmented batches, and rates above 1e-4, cause most of the loss. So batch norms stay in
evaluation mode, the rate is low, and a trial decides: a copy trains on four fifths of the training images, and all
layers are trained only where the last fifth shows that this is better than the head alone. Validation images are not
used for that choice.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from fastai.optimizer import OptimWrapper
from fastai.vision.all import Callback, DataLoader, DataLoaders, Learner
from torch import nn

from kit import processes
from kit.console import emit, say
from kit.data.cached_dl import cache_images, missing_skipped
from kit.data.datablock import fit_workers, part
from kit.data.splits import inner_folds
from kit.data.transforms import TRAIN
from kit.model.build import features_of, spec_of
from kit.model.heads import Range, classifier, featurizer
from kit.recipe import Recipe
from kit.tasks.training import TaskTraining, training_of
from kit.train.callbacks import (
    Stop,
    StopAtNonFinite,
    StopWithoutImages,
    best_weights_kept,
    training_callbacks,
)
from kit.train.data_parallel import divided
from kit.train.history import HEAD, History, quiet
from kit.train.linear import LinearHead, fit_head
from kit.train.precision import precision_for, training_in
from kit.train.rates import rates_for
from kit.train.state import copy_of, left_usable, random_state_kept

FOLDS = 5
MIN_MISTAKES = 2  # of the head on held-out images: with fewer, no trial could show that all layers are better
STEPS_AN_EPOCH, MIN_BATCH = 16, 8


@dataclass(frozen=True)
class Trial:
    """Head alone against all layers, on n training images held out from both: mean losses, the standard error of their
    paired difference, and the number of wrong images (None for regression)."""

    n: int
    head_loss: float
    whole_loss: float
    error: float
    head_mistakes: int | None
    whole_mistakes: int | None

    @property
    def better(self) -> bool:
        """Whether all layers have a loss lower by more than one standard error, and no more wrong images.

        The final training gives another network than the trial, so a difference within the noise proves nothing.
        """
        fewer = self.head_mistakes is None or self.whole_mistakes <= self.head_mistakes
        return self.head_loss - self.whole_loss > self.error and fewer

    def __str__(self) -> str:
        loss = f"loss {self.whole_loss:.3g} against {self.head_loss:.3g} (standard error {self.error:.2g})"
        wrong = "" if self.head_mistakes is None else f"{self.whole_mistakes} wrong against {self.head_mistakes}, "
        return f"on {self.n} held-out training images, {wrong}{loss}"


def transfer(
    learn: Learner, recipe: Recipe, history: History, cbs: Sequence[Callback], options: dict, accumulate: int
) -> None:
    """Train the head of `learn` from features, then all layers, with `layers` auto where a trial shows them better.

    cbs, options: fastai's, for the training of all layers. The choice and its reason are stored in `history.chosen`.
    """
    if history.phase == "whole":  # the checkpoint is after the choice
        return train_all_layers(learn, recipe, history, cbs, options, accumulate)
    emit("phase", phase=HEAD)
    started, rows = time.perf_counter(), learn.dls.train_ds.items
    features, targets = features_of(learn, rows, create=True), targets_of(learn, rows)
    valid = features_of(learn, learn.dls.valid_ds.items, create=True)
    folds = inner_folds(rows.assign(label=training_of(recipe.task).strata(rows["label"].tolist())), FOLDS, recipe.seed)
    head = processes.first(fit_head, features, targets, folds, recipe.task, is_balanced(recipe))
    fill_head(learn.model, head)
    history.add_head(head_row(learn, features, valid), head.losses, time.perf_counter() - started)
    history.chosen |= {"strength": head.strength}
    say(f"head: {_found(head, targets, training_of(recipe.task))} after {time.perf_counter() - started:.1f} s")
    kept, because, trial = "whole" if recipe.layers == "all" else "head", "as asked", None
    if recipe.layers == "auto":
        decided = _decide(learn, recipe, head, features, targets, folds, accumulate)
        kept, because, trial = processes.first(lambda: decided)  # other processors may round otherwise
        say(because if trial else f"head alone: {because}")
    history.chosen["layers"] = {"kept": kept, "because": because, "trial": asdict(trial) if trial else None}
    if kept == "whole":
        train_all_layers(learn, recipe, history, cbs, options, accumulate)


def is_balanced(recipe: Recipe) -> bool:
    """Whether all classes have the same total weight in the fit of a head."""
    return "balanced" in (recipe.class_weights, recipe.sampler)


def targets_of(learn: Learner, rows: Any) -> np.ndarray:
    """The `targets` of `fit_head` for rows of a table."""
    spec, vocab = spec_of(learn), [str(name) for name in learn.dls.vocab]
    targets = training_of(spec.recipe.task).targets(rows["label"].tolist(), vocab)
    return targets if spec.output_range is None else _before_range(targets, spec.output_range)


def _before_range(numbers: np.ndarray, output_range: Range) -> np.ndarray:
    """The outputs of the linear layer for which `Range` returns `numbers`."""
    low, high = (end.cpu().double().numpy() for end in (output_range.low, output_range.high))
    share = (numbers - low) / (high - low)
    if not output_range.bounded:
        return share
    share = np.clip(share, 0.01, 0.99)
    return np.log(share / (1 - share))


def fill_head(network: nn.Module, head: LinearHead) -> None:
    """Copy weight and bias of a head into the linear layer of a network."""
    linear = classifier(network)[0]
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.weight))
        linear.bias.copy_(torch.from_numpy(head.bias))


class FeatureLoader(DataLoader):
    """Batches of features (n, f) and fastai's own targets of the same images, to compute losses and metrics."""

    def __init__(self, features: np.ndarray, labels: Any, bs: int):
        super().__init__(range(len(features)), bs=bs, num_workers=0)
        self.features, self.labels = torch.from_numpy(features), labels

    def create_batch(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and targets at these indices."""
        return self.features[numbers], torch.stack([self.labels[number] for number in numbers])


def head_row(learn: Learner, features: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Training loss, validation loss and the learner's metrics of the head, computed from features."""
    datasets, bs = (learn.dls.train_ds, learn.dls.valid_ds), learn.dls.valid.bs
    both = (FeatureLoader(rows, one.tls[1], bs) for rows, one in zip((features, valid), datasets, strict=True))
    loaders = DataLoaders(*both, device=learn.dls.device)
    head = Learner(loaders, classifier(learn.model), loss_func=learn.loss_func, metrics=deepcopy(learn.metrics))
    with quiet(head):
        train_loss, (valid_loss, *figures) = head.validate(dl=loaders.train)[0], head.validate()
    names = [metric.name for metric in head.metrics]
    row = {"train_loss": train_loss, "valid_loss": valid_loss} | dict(zip(names, figures, strict=True))
    return {name: float(value) for name, value in row.items()}


def _found(head: LinearHead, targets: np.ndarray, training: TaskTraining) -> str:
    """The cross-validated error or loss of the head, for a message."""
    there = np.isfinite(head.held_out[:, 0])
    if not there.any():
        return "too few training images to cross-validate it"
    wrong = training.mistakes(head.held_out[there], targets[there])
    of = f"{there.sum()} training images, cross-validated"
    if wrong is None:
        return f"loss {head.losses[head.strength]:.3g} on {of}"
    alone = len(there) - there.sum()
    note = f" ({alone} more are the only ones of their class)" if alone and len(there) <= 5_000 else ""
    return f"error {wrong / there.sum():.3f} on {of}{note}"


def _decide(
    learn: Learner,
    recipe: Recipe,
    head: LinearHead,
    features: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    accumulate: int,
) -> tuple[str, str, Trial | None]:
    """Whether to train "head" or "whole", the reason for messages, and the trial where there was one."""
    held = (folds == 0) & np.isfinite(head.held_out[:, 0])
    if not held.any() or held.all():
        return "head", "too few training images to try whether all layers are better", None
    training = training_of(recipe.task)
    wrong = training.mistakes(head.held_out[held], targets[held])
    if wrong is not None and wrong < MIN_MISTAKES:
        found = f"the head gets {wrong} of {held.sum()} held-out training images wrong"
        return "head", f"{found}, which leaves nothing to improve", None
    if isinstance(learn.opt_func, OptimWrapper):
        return "head", "opt_func is an optimiser of its own parameters, so that no copy can be trained to compare", None
    emit("phase", phase="trial")
    say(f"try all layers on {(~held).sum()} training images ...")
    inner = inner_learner(learn, held)
    no_folds = np.full((~held).sum(), -1)
    balanced, strengths = is_balanced(recipe), (head.strength,)
    part = processes.first(fit_head, features[~held], targets[~held], no_folds, recipe.task, balanced, strengths)
    try:
        outputs = _tried(inner, recipe, part, accumulate)
    except Stop as stop:
        return "head", f"with all layers {stop.error.problem}", None
    solver = training.solver(targets, False)
    ours, theirs = (solver.losses(one, held) for one in (head.held_out[held], outputs))
    error = float((ours - theirs).std() / np.sqrt(held.sum()))
    counts = (wrong, training.mistakes(outputs, targets[held]))
    trial = Trial(int(held.sum()), float(ours.mean()), float(theirs.mean()), error, *counts)
    kept = "whole" if trial.better else "head"
    return kept, f"all layers are {'better' if trial.better else 'not clearly better'}: {trial}", trial


def _tried(inner: Learner, recipe: Recipe, head: LinearHead, accumulate: int) -> np.ndarray:
    """Output of the linear layer for the held-out images, after training all layers of a copy."""
    fill_head(inner.model, head)
    batches = max(1, min(accumulate, len(inner.dls.train)))
    with random_state_kept(inner.dls), quiet(inner):
        train_all_layers(inner, recipe, History(quiet=True), [], {}, batches)
        inner.model = nn.Sequential(featurizer(inner.model), classifier(inner.model)[0])  # without regression's range
        with divided(inner) as callbacks:
            return inner.get_preds(act=lambda output: output, cbs=callbacks)[0].double().numpy()


def inner_learner(learn: Learner, held: np.ndarray) -> Learner:
    """A copy of `learn` whose validation images are the training images where `held` (n,) is true.

    The training images are decoded here for both.
    """
    dls = learn.dls
    cache_images(dls, spec_of(learn).recipe.cache, splits=(TRAIN,))
    train, valid = (part(dls.train_ds, rows, side) for side, rows in enumerate((~held, held)))
    inner = DataLoaders(dls.train.new(train), dls.valid.new(valid), device=dls.device)
    inner.train.take_part(dls.train, np.flatnonzero(~held))
    copy = copy_of(learn, inner)
    copy.spec = spec_of(learn)
    return copy


class FrozenStatistics(Callback):
    """Keeps batch norms in evaluation mode during training: they use the pretrained mean and variance."""

    def before_train(self) -> None:
        """Undo fastai's training mode for batch norms."""
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def train_all_layers(
    learn: Learner, recipe: Recipe, history: History, cbs: Sequence[Callback], options: dict, accumulate: int
) -> None:
    """One cycle of `recipe.epochs` over all layers, from a trained head, with batch norms in evaluation mode."""
    loader, full, count = learn.dls.train, learn.dls.train.bs, len(learn.dls.train_ds)
    # A few hundred images in batches of 64 would be only a few steps an epoch.
    loader.bs = min(full, count, max(MIN_BATCH, processes.count(), count // (STEPS_AN_EPOCH * accumulate)))
    try:
        with training_on_images(learn, recipe, history, cbs, accumulate) as (callbacks, rate, lr_mult):
            learn.unfreeze()
            rates = slice(rate / lr_mult, rate)
            learn.fit_one_cycle(recipe.epochs, rates, cbs=[FrozenStatistics(), *callbacks], **options)
    finally:
        loader.bs = full


@contextmanager
def training_on_images(
    learn: Learner, recipe: Recipe, history: History, cbs: Sequence[Callback], accumulate: int
) -> Iterator[tuple[list[Callback], float, float]]:
    """Decode the images, set precision and memory layout, and yield the callbacks, the rate and `lr_mult` for fastai.

    After an interruption the learner has its best weights and can be used further.
    """
    history.chosen["cache"] = cache_images(learn.dls, recipe.cache)
    if history.chosen["cache"] == "none":
        fit_workers(learn.dls, recipe.read_size)
    own = training_callbacks(learn, recipe, accumulate)
    if "rate" not in history.chosen:  # else they were chosen before the checkpoint
        rate, lr_mult = processes.first(rates_for, learn, recipe)
        history.chosen |= {"rate": rate, "lr_mult": lr_mult, "batch": learn.dls.train.bs, "accumulate": accumulate}
    rate, lr_mult = history.chosen["rate"], history.chosen["lr_mult"]
    training = training_in(learn, precision_for(learn, recipe), recipe.compile)
    if processes.count() > 1 and not history.quiet:
        batch, count = learn.dls.train.bs, processes.count()
        say(f"{count} processes: {batch} images a batch in all (--batch), up to {-(-batch // count)} in each process")
    stops = [StopAtNonFinite(history, rate), StopWithoutImages()]
    best, skipped = best_weights_kept(learn.model, own), missing_skipped(learn.dls)
    with left_usable(learn), best, skipped, divided(learn, recipe.sync_bn) as parallel, training as needed:
        yield [*needed, *own, *stops, *parallel, history, *cbs], rate, lr_mult
