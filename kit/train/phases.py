"""Fine-tuning by a recipe: `kit.train.transfer` for a linear head, fastai's own phases for fastai's head.

history = fine_tune(learn, Recipe(layers="whole", epochs=3))   # learn.fine_tune(3) with a history
"""

import random
import re
import sys
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.vision.all import Callback, Learner

from kit import processes
from kit.console import say
from kit.errors import Terminated, TrainingError, first_line
from kit.files import NO_ROOM
from kit.machine import deterministic_algorithms, keep_freed_memory
from kit.model.build import spec_of
from kit.model.heads import LINEAR
from kit.recipe import Recipe, check_same_data
from kit.train.callbacks import Stop
from kit.train.checkpoint import Checkpoint
from kit.train.data_parallel import check_processes
from kit.train.history import History, quiet
from kit.train.logs import logging_to
from kit.train.out_of_memory import train_in_memory
from kit.train.transfer import training_on_images, transfer


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
    checkpoint: Checkpoint | None = None,
    **kwargs: Any,
) -> History:
    """Train `learn` by a recipe and return the history; weights are fp32 afterwards.

    recipe: by default the one that `learn` was made with. Another one may differ in fields of training only, else
    `RecipeError` names the others; it is stored in `learn.spec`.
    With a linear head (`layers` auto, head or all) `transfer` trains the head from features and then, for all or if
    that is better, all layers. With fastai's head and pretrained weights `Learner.fine_tune` is called, with random
    weights `fit_one_cycle` on all layers for all epochs. cbs and further arguments (`pct_start`, `div`, ...) go to
    these calls; they do not apply to a head that is trained from features.
    history: give one to read it after Ctrl-C or `TrainingError` (a loss that is not finite); `learn` then has the
    weights from before the failing step. log_folder: for the files of `recipe.log`. checkpoint: writes checkpoints, and
    where it has loaded one, training goes on from there.
    """
    spec, history = spec_of(learn), History() if history is None else history
    recipe = spec.recipe if recipe is None else recipe
    check_same_data(spec.recipe, recipe)
    check_processes(learn, recipe)
    learn.spec = replace(spec, recipe=recipe)
    history.log_run = checkpoint.log_run if checkpoint else None
    log = "none" if processes.rank() else recipe.log
    logging = logging_to(log, learn, history, log_folder, recipe.to_json())
    with quiet(learn), keep_freed_memory(), deterministic_algorithms(), logging as logs:
        attempt = partial(_attempt, learn, recipe, history, [*logs, *(cbs or [])], kwargs, checkpoint)
        try:
            train_in_memory(learn, recipe.accumulate, attempt, checkpoint.halvings if checkpoint else 0)
            if checkpoint:
                checkpoint.release()  # an epoch that early stopping ended did not
            processes.send_state(learn.model)
        except Stop as stop:
            history.stopped = stop.error.problem
            raise stop.error from None
        except (RuntimeError, OSError) as error:
            killed = re.search("DataLoader worker.*(killed|exited)", str(error))
            if not killed and getattr(error, "errno", None) not in NO_ROOM:
                raise
            clear_silently(error)
            history.stopped = f"images cannot be loaded: {first_line(error)}"
            raise TrainingError(history.stopped, fix="--workers 0, or more room in /dev/shm and memory") from error
        except (KeyboardInterrupt, Terminated) as stop:
            history.stopped = "stopped by SIGTERM" if isinstance(stop, Terminated) else "stopped by Ctrl-C"
            raise
        finally:
            if checkpoint:
                checkpoint.signals.deferred = False
    return history


def clear_silently(error: BaseException) -> None:
    """Free what the frames of an error hold; a loader that was half made would print a traceback at that moment."""
    usual, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
    finally:
        sys.unraisablehook = usual


def _attempt(
    learn: Learner,
    recipe: Recipe,
    history: History,
    cbs: list[Callback],
    options: dict,
    checkpoint: Checkpoint | None,
    accumulate: int,
    halvings: int,
) -> None:
    """Train once with `accumulate` batches a step: from the start, or from the checkpoint that was loaded."""
    history.clear()
    history.chosen["halvings"] = halvings
    if checkpoint:
        checkpoint.begin(learn, history)
        cbs = [*cbs, checkpoint]
    learn.model.to(learn.dls.device)  # fastai moves it only when fitting; `progressive_resizing` runs the model before
    if spec_of(learn).head == LINEAR:
        return transfer(learn, recipe, history, cbs, options, accumulate)
    with training_on_images(learn, recipe, history, cbs, accumulate) as (callbacks, rate, lr_mult):
        if spec_of(learn).weights.pretrained:
            frozen = 0 if history.phase == "whole" else recipe.freeze_epochs  # the checkpoint is after that phase
            phases = {"freeze_epochs": frozen, "lr_mult": lr_mult} | options
            learn.fine_tune(recipe.epochs, rate, cbs=callbacks, **phases)
        else:
            say("note: a random start has nothing to freeze; all layers train from the first step")
            learn.fit_one_cycle(recipe.freeze_epochs + recipe.epochs, rate, cbs=callbacks, **options)
