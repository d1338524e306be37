"""The phases of fine-tuning: the head on a frozen body (or on its features), then all layers, each with one cycle.

history = fine_tune(learn, Recipe(epochs=3))       # what learn.fine_tune(3) does, recorded, in the right precision
"""

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.vision.all import Callback, Learner

from kit.console import say
from kit.data.resident import make_resident
from kit.machine import heap_kept
from kit.model.build import origin_of
from kit.recipe import Recipe
from kit.train.callbacks import training_callbacks
from kit.train.divergence import NotFinite, StopAtNonFinite
from kit.train.head_first import train_head
from kit.train.history import History, quiet
from kit.train.logs import logging_to
from kit.train.losses import TrainingLoss
from kit.train.memory import trained_in_memory
from kit.train.precision import precision_for, training_in
from kit.train.rates import rates_for
from kit.train.state import left_usable
from kit.train.stopping import best_weights_kept


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python, and ask cuDNN for repeatable algorithms."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def fine_tune(
    learn: Learner,
    recipe: Recipe,
    *,
    cbs: list | None = None,
    history: History | None = None,
    log_folder: Path | None = None,
    **kwargs: Any,
) -> History:
    """Train `learn` as the recipe says, and return the history; the learner comes back in fp32.

    Pretrained weights: fastai's `Learner.fine_tune`, to which further arguments go (`pct_start`, `div`, ...); with
    `recipe.head_first`, `train_head` instead of its frozen epochs, to which they and callbacks do not go.
    A random start has nothing to freeze: all layers train for all epochs with `fit_one_cycle` at the same rate.
    history: one of your own, to look into when training ends by Ctrl-C or by `TrainingError` (a loss that is not
    finite): `learn` then has the weights so far. log_folder: where `recipe.log` writes.
    """
    history = History() if history is None else history
    history.chosen["cache"] = make_resident(learn.dls, recipe)
    with quiet(learn), heap_kept(), logging_to(recipe.log, learn, log_folder, recipe.to_json()) as logs:
        attempt = partial(_attempt, learn, recipe, history, [*logs, *(cbs or [])], kwargs)
        try:
            history.chosen["halvings"] = trained_in_memory(learn, recipe.accumulate, attempt)
        except NotFinite as stop:
            history.stopped = stop.error.problem
            raise stop.error from None
        except KeyboardInterrupt:
            history.stopped = "stopped by Ctrl-C"
            raise
    return history


def _attempt(
    learn: Learner, recipe: Recipe, history: History, cbs: list[Callback], options: dict, accumulate: int
) -> None:
    """One training from its beginning to its end, with so many batches a step."""
    history.clear()
    learn.model.to(learn.dls.device)  # fastai does so when it fits; a look at the network comes before
    own = training_callbacks(learn, recipe, accumulate)
    rate, lr_mult = rates_for(learn, recipe)
    history.chosen |= {"rate": rate, "lr_mult": lr_mult, "batch": learn.dls.train.bs, "accumulate": accumulate}
    precision = precision_for(learn, recipe)
    training = training_in(learn, precision, recipe.compile)
    with left_usable(learn), best_weights_kept(learn.model, own), training as needed:
        extra = [*needed, *own, StopAtNonFinite(history, rate), history, *cbs]
        if origin_of(learn).start.pretrained:
            phases = {"freeze_epochs": recipe.freeze_epochs, "lr_mult": lr_mult} | options
            if recipe.head_first:
                losses = [callback for callback in own if isinstance(callback, TrainingLoss)]
                alone = [*losses, StopAtNonFinite(history, rate), history]
                train_head(learn, recipe.head_first, rate, precision, alone, accumulate)
                phases["freeze_epochs"] = 0
            learn.fine_tune(recipe.epochs, rate, cbs=extra, **phases)
        else:
            say("note: a random start has nothing to freeze; all layers train from the first step")
            learn.fit_one_cycle(recipe.freeze_epochs + recipe.epochs, rate, cbs=extra, **options)
