"""Fine-tuning as a recipe says: `kit.train.transfer` where the head is linear, fastai's own phases where it is not.

history = fine_tune(learn, Recipe(layers="whole", epochs=3))   # what learn.fine_tune(3) does, recorded
"""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.vision.all import Callback, Learner

from kit.console import say
from kit.data.cached_dl import cache_images
from kit.machine import heap_kept, repeatable_algorithms
from kit.model.build import spec_of
from kit.model.heads import LINEAR
from kit.recipe import Recipe, check_same_data
from kit.train.callbacks import training_callbacks
from kit.train.history import History, quiet
from kit.train.logs import logging_to
from kit.train.non_finite import NotFinite, StopAtNonFinite
from kit.train.out_of_memory import trained_in_memory
from kit.train.precision import precision_for, training_in
from kit.train.rates import rates_for
from kit.train.state import left_usable
from kit.train.stopping import best_weights_kept
from kit.train.transfer import transfer


def seed_everything(seed: int) -> None:
    """Seed the random numbers of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def fine_tune(
    learn: Learner,
    recipe: Recipe | None = None,
    *,
    cbs: list | None = None,
    history: History | None = None,
    log_folder: Path | None = None,
    **kwargs: Any,
) -> History:
    """Train `learn` as the recipe says, and return the history; the learner comes back in fp32.

    recipe: by default the one that `learn` was made with; of another one, only fields of training may differ, else
    `RecipeError` names those that do not fit. `learn.spec` keeps the one that was used.
    A linear head (`layers` auto or head): `transfer`, the head from features first, then perhaps all layers. fastai's
    head and pretrained weights: `Learner.fine_tune`. cbs and further arguments (`pct_start`, `div`, ...) go to fastai's
    cycles, so that they see nothing of a head that is learned from features.
    A random start has nothing to freeze: all layers train for all epochs with `fit_one_cycle` at the same rate.
    history: one of your own, to look into when training ends by Ctrl-C or by `TrainingError` (a loss that is not
    finite): `learn` then has the weights so far. log_folder: where `recipe.log` writes.
    """
    spec, history = spec_of(learn), History() if history is None else history
    recipe = spec.recipe if recipe is None else recipe
    check_same_data(spec.recipe, recipe)
    learn.spec = replace(spec, recipe=recipe)
    logging = logging_to(recipe.log, learn, log_folder, recipe.to_json())
    with quiet(learn), heap_kept(), repeatable_algorithms(), logging as logs:
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
    if spec_of(learn).head == LINEAR:
        return transfer(learn, recipe, history, cbs, options, accumulate)
    history.chosen["cache"] = cache_images(learn.dls, recipe.cache)
    own = training_callbacks(learn, recipe, accumulate)
    rate, lr_mult = rates_for(learn, recipe)
    history.chosen |= {"rate": rate, "lr_mult": lr_mult, "batch": learn.dls.train.bs, "accumulate": accumulate}
    training = training_in(learn, precision_for(learn, recipe), recipe.compile)
    with left_usable(learn), best_weights_kept(learn.model, own), training as needed:
        extra = [*needed, *own, StopAtNonFinite(history, rate), history, *cbs]
        if spec_of(learn).weights.pretrained:
            phases = {"freeze_epochs": recipe.freeze_epochs, "lr_mult": lr_mult} | options
            learn.fine_tune(recipe.epochs, rate, cbs=extra, **phases)
        else:
            say("note: a random start has nothing to freeze; all layers train from the first step")
            learn.fit_one_cycle(recipe.freeze_epochs + recipe.epochs, rate, cbs=extra, **options)
