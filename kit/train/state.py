"""Save and restore the state that training changes: random states, weights, optimiser.

with random_state_kept(dls): dls.one_batch()            # later random numbers are the same as without this line
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from fastai.vision.all import DataLoaders, Learner


def random_state(dls: DataLoaders) -> dict[str, Any]:
    """The state of all generators that training uses: Python's, numpy's, torch's on CPU and GPU, and each loader's."""
    device = torch.device(dls.device)
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "cpu": torch.get_rng_state(),
        "gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "loaders": [loader.rng.getstate() for loader in dls.loaders],
    }


def set_random_state(dls: DataLoaders, state: dict[str, Any]) -> None:
    """Restore what `random_state` returned, in this process or another."""
    random.setstate(_of_python(state["python"]))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    device = torch.device(dls.device)
    if state["gpu"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["gpu"], device)
    for loader, one in zip(dls.loaders, state["loaders"], strict=True):
        loader.rng.setstate(_of_python(one))


def _of_python(state: Sequence) -> tuple:
    """A state of Python's generator as tuples, which JSON reads as lists."""
    version, numbers, gauss = state
    return version, tuple(numbers), gauss


@contextmanager
def random_state_kept(dls: DataLoaders) -> Iterator[None]:
    """Restores all random states on exit."""
    before = random_state(dls)
    try:
        yield
    finally:
        set_random_state(dls, before)


class Snapshot:
    """A copy of a learner's state: weights (on the CPU), which parameters are frozen, optimiser, random states."""

    def __init__(self, learn: Learner):
        self.learn, self.random = learn, random_state(learn.dls)
        self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in learn.model.state_dict().items()}
        self.unfrozen = [parameter.requires_grad for parameter in learn.model.parameters()]
        self.opt = learn.opt
        self.opt_state = deepcopy(learn.opt.state_dict()) if learn.opt is not None else None

    def restore(self) -> None:
        self.learn.model.load_state_dict(self.weights)
        for parameter, unfrozen in zip(self.learn.model.parameters(), self.unfrozen, strict=True):
            parameter.requires_grad_(unfrozen)
        self.learn.opt = self.opt
        if self.opt is not None:
            self.opt.load_state_dict(deepcopy(self.opt_state))
        set_random_state(self.learn.dls, self.random)


def copy_of(learn: Learner, dls: DataLoaders) -> Learner:
    """A Learner over `dls` with the settings of `learn`, copies of its model and loss, and only fastai's callbacks."""
    names = ("opt_func", "splitter", "lr", "wd", "wd_bn_bias", "train_bn", "moms", "default_cbs")
    same = {name: getattr(learn, name) for name in names}
    return Learner(dls, deepcopy(learn.model), loss_func=deepcopy(learn.loss_func), **same)


@contextmanager
def left_usable(learn: Learner) -> Iterator[None]:
    """Cleans up after an interrupted training, which fastai does not: gradients, references to batches, the loss."""
    loss_func = learn.loss_func
    try:
        yield
    except BaseException:
        learn.model.zero_grad()
        learn._end_cleanup()
        raise
    finally:
        learn.loss_func = loss_func
