"""The phases of fine-tuning: the head alone on a frozen body, then the whole network, each with one cycle.

history = fine_tune(learn, Recipe(epochs=3))       # what learn.fine_tune(3) does, recorded, in the right precision
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from fastai.vision.all import IN_NOTEBOOK, Learner

from kit.console import say
from kit.model.build import origin_of
from kit.recipe import Recipe
from kit.train.history import History
from kit.train.precision import Precision, choose_precision, device_facts, training_in


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python, and ask cuDNN for repeatable algorithms."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def fine_tune(learn: Learner, recipe: Recipe, *, cbs: list | None = None, **kwargs: Any) -> History:
    """Train `learn` as the recipe says, and return the history; the learner comes back in fp32.

    Pretrained weights: fastai's `Learner.fine_tune`, to which further arguments go (`pct_start`, `div`, ...).
    A random start has nothing to freeze: all layers train for all epochs with `fit_one_cycle` at the same rate.
    """
    pretrained, history = origin_of(learn).start.pretrained, History(quiet=IN_NOTEBOOK)
    rate, lr_mult = rates_for(learn, recipe)
    with nullcontext() if IN_NOTEBOOK else _quiet(learn), training_in(learn, precision_for(learn, recipe)) as needed:
        extra = [*needed, history, *(cbs or [])]
        if pretrained:
            options = {"freeze_epochs": recipe.freeze_epochs, "lr_mult": lr_mult} | kwargs
            learn.fine_tune(recipe.epochs, rate, cbs=extra, **options)
        else:
            say("note: a random start has nothing to freeze; all layers train from the first step")
            learn.fit_one_cycle(recipe.freeze_epochs + recipe.epochs, rate, cbs=extra, **kwargs)
    return history


@contextmanager
def _quiet(learn: Learner) -> Iterator[None]:
    """Without fastai's own table and bars: in a script they flood the log, and kit says its own lines."""
    with learn.no_logging(), learn.no_bar():
        yield


def rates_for(learn: Learner, recipe: Recipe) -> tuple[float, float]:
    """The recipe's rate and lr_mult; where it leaves them open, those that suit what the learner started from.

    The bundled weights were learned on photos of 32 pixels: they must move further than ImageNet's, early layers too.
    """
    rate, lr_mult = (5e-3, 10.0) if origin_of(learn).start.kind == "bundled" else (2e-3, 100.0)
    return recipe.rate or rate, recipe.lr_mult or lr_mult


def precision_for(learn: Learner, recipe: Recipe) -> Precision:
    """What the recipe's precision means on the learner's device."""
    device = torch.device(learn.dls.device)
    return choose_precision(recipe.precision, device, device_facts(device))
