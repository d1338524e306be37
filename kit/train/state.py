"""What training changes beside the weights: random numbers, and a learner half way through; put back when asked.

with random_state_kept(dls): dls.one_batch()          # the next run draws what it would have drawn anyway
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch
from fastai.vision.all import DataLoaders, Learner


class RandomNumbers:
    """Every generator that training draws from: Python's, numpy's, torch's on CPU and GPU, and each loader's."""

    def __init__(self, dls: DataLoaders):
        self.python, self.numpy = random.getstate(), np.random.get_state()
        self.cpu, self.device = torch.get_rng_state(), torch.device(dls.device)
        self.gpu = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        self.loaders = [(loader, loader.rng, loader.rng.getstate()) for loader in dls.loaders]

    def put_back(self) -> None:
        """As it was. fastai gives a loader another generator in each epoch: it gets its own again."""
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
    """Whatever is drawn meanwhile, what follows draws the same random numbers."""
    before = RandomNumbers(dls)
    try:
        yield
    finally:
        before.put_back()


class Beginning:
    """A learner before its training: weights (copied to the CPU), what is frozen, optimiser, random numbers."""

    def __init__(self, learn: Learner):
        self.learn, self.random = learn, RandomNumbers(learn.dls)
        self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in learn.model.state_dict().items()}
        self.awake = [parameter.requires_grad for parameter in learn.model.parameters()]
        self.opt = learn.opt
        self.opt_state = deepcopy(learn.opt.state_dict()) if learn.opt is not None else None

    def put_back(self) -> None:
        """As it was, every bit of it."""
        self.learn.model.load_state_dict(self.weights)
        for parameter, awake in zip(self.learn.model.parameters(), self.awake, strict=True):
            parameter.requires_grad_(awake)
        self.learn.opt = self.opt
        if self.opt is not None:
            self.opt.load_state_dict(deepcopy(self.opt_state))
        self.random.put_back()


def copy_of(learn: Learner, dls: DataLoaders) -> Learner:
    """A Learner over `dls` with the settings of `learn`, its own model and loss, and fastai's callbacks alone."""
    names = ("opt_func", "splitter", "lr", "wd", "wd_bn_bias", "train_bn", "moms", "default_cbs")
    same = {name: getattr(learn, name) for name in names}
    return Learner(dls, deepcopy(learn.model), loss_func=deepcopy(learn.loss_func), **same)


@contextmanager
def left_usable(learn: Learner) -> Iterator[None]:
    """However training ends, `learn` is left as one to go on with: fastai tidies up only after an end of its own."""
    loss_func = learn.loss_func
    try:
        yield
    except BaseException:
        learn.model.zero_grad()
        learn._end_cleanup()
        raise
    finally:
        learn.loss_func = loss_func
