"""Training of one network by several processes: each computes the gradient of its part of every batch.

with divided(learn) as callbacks: learn.fit(1, cbs=callbacks)       # one process: no callbacks, nothing changes

The batch size is that of all processes together, so that steps, rates and losses are those of one process. PyTorch's
DistributedDataParallel averages the gradients (`kit.mechanism.parallel` shows how). In validation the outputs of all
parts are put together again, and each process computes loss and metrics from all of them, each image counted once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain

import torch
from fastai.vision.all import Callback, DataLoader, Learner, find_bs
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kit import processes
from kit.data.cached_dl import CachedDL
from kit.errors import RecipeError
from kit.recipe import Recipe


def check_processes(learn: Learner, recipe: Recipe) -> None:
    """Raise `RecipeError` for what several processes cannot do."""
    count, device = processes.count(), torch.device(learn.dls.device)
    if recipe.sync_bn and device.type != "cuda":
        problem = f"sync_bn=True needs GPUs: PyTorch's SyncBatchNorm does not run on the device {device}"
        raise RecipeError(problem, fix="leave it out")
    if count == 1:
        return
    if recipe.compile:
        raise RecipeError(f"compile=True is not supported with {count} processes", fix="leave it out")
    if recipe.batch < count or len(learn.dls.train_ds) < count:
        problem = f"{count} processes cannot divide a batch of {recipe.batch} from {len(learn.dls.train_ds)} images"
        raise RecipeError(problem, fix=f"--batch {8 * count}, or fewer processes")
    for loader in learn.dls.loaders:
        if not isinstance(loader, CachedDL):
            problem = f"{count} processes cannot divide the batches of a {type(loader).__name__}"
            raise RecipeError(problem, fix="DataLoaders of kit.data.blocks, or one process")


@contextmanager
def divided(
    learn: Learner, sync_bn: bool = False, loaders: Sequence[DataLoader] | None = None
) -> Iterator[list[Callback]]:
    """Divide batches among the processes inside the block; yields the callbacks for `learn.fit` or `learn.get_preds`.

    Loaders that are not kit's are not divided; `check_processes` refuses them for training.
    sync_bn: batch norms in training mode use the statistics of the whole batch instead of those of the part. loaders:
    by default those of `learn`.
    """
    loaders = list(learn.dls.loaders if loaders is None else loaders)
    if processes.count() == 1 or not all(isinstance(loader, CachedDL) for loader in loaders):
        yield []
        return
    for loader in loaders:
        loader.divided = True
    try:
        yield [DataParallel(learn.model, sync_bn)]
    finally:
        for loader in loaders:
            loader.divided = False


class DataParallel(Callback):
    """Runs training batches through DistributedDataParallel, and gathers the outputs of validation batches.

    `learn.model` is the network itself outside of the forward pass, so that checkpoints and callbacks see no wrapper.
    """

    order = -4  # before callbacks that read the loss

    def __init__(self, model: nn.Module, sync_bn: bool):
        super().__init__()
        self.plain, self.sync_bn, self.inner = model, sync_bn, model

    def before_fit(self) -> None:
        """Wrap the network, whose weights are then those of the first process, and draw other random numbers."""
        self.inner = with_synchronised_norms(self.plain) if self.sync_bn else self.plain
        # A static graph may have parameters that the output does not depend on.
        self.wrapped = DistributedDataParallel(self.inner, static_graph=True)
        if processes.rank():
            torch.manual_seed(torch.initial_seed() + processes.rank())

    def before_batch(self) -> None:
        if self.training:
            for own, plain in zip(self.inner.modules(), self.plain.modules(), strict=True):
                own.training = plain.training
            self.learn.model = self.wrapped

    def after_pred(self) -> None:
        """Back to the network itself; in validation, outputs and targets of the whole batch."""
        self.learn.model = self.plain
        if not self.training:
            size = min(self.dl.bs, self.dl.n - self.iter * self.dl.bs)
            part = processes.share(size)
            found = (self.pred.cpu(), *(y.cpu() for y in self.yb)) if part.start < part.stop else None
            parts = zip(*filter(None, processes.gathered(found)), strict=True)
            self.learn.pred, *targets = (torch.cat(one).to(self.pred.device) for one in parts)
            self.learn.yb = tuple(targets)

    def after_loss(self) -> None:
        """The loss of the whole batch for other callbacks; weights the gradient by the size of this part."""
        if self.training:
            size = find_bs(self.yb)
            loss, whole = processes.total(float(self.loss.detach().mean()) * size, size)
            self.learn.loss = self.loss.new_tensor(loss / whole)
            self.learn.loss_grad = self.loss_grad * (size * processes.count() / whole)

    def before_validate(self) -> None:
        """Give all processes the same running statistics, which each batch norm keeps of its own parts."""
        processes.send_state(self.plain, buffers_only=True)


def with_synchronised_norms(model: nn.Module) -> nn.Module:
    """A copy of `model` that shares its parameters and buffers, with SyncBatchNorm in place of batch norms."""
    from timm.layers import convert_sync_batchnorm

    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return convert_sync_batchnorm(deepcopy(model, shared))
