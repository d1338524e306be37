"""Save and restore the state that training changes: random states, weights, optimiser.

with random_state_kept(dls): dls.one_batch()            # later random numbers are the same as without this line
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch
from fastai.vision.all import DataLoaders, Learner


class RandomState:
    """The state of all generators that training uses: Python's, numpy's, torch's on CPU and GPU, and each loader's."""

    def __init__(self, dls: DataLoaders):
        self.python, self.numpy = random.getstate(), np.random.get_state()
        self.cpu, self.device = torch.get_rng_state(), torch.device(dls.device)
        self.gpu = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        self.loaders = [(loader, loader.rng, loader.rng.getstate()) for loader in dls.loaders]

    def restore(self) -> None:
        """Restore all states. Loaders get their own generators back, which fastai replaces in each epoch."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu, self.device)
        for loader, generator, state in self.loaders:
            generator.setstate(state)
            loader.rng = generator


@contextmanager
def random_state_kept(dls: DataLoaders) -> Iterator[None]:
    """Restores all random states on exit."""
    before = RandomState(dls)
    try:
        yield
    finally:
        before.restore()


class Snapshot:
    """A copy of a learner's state: weights (on the CPU), which parameters are frozen, optimiser, random states."""

    def __init__(self, learn: Learner):
        self.learn, self.random = learn, RandomState(learn.dls)
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
        self.random.restore()


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
