"""Out of memory: train again with half the batch size and twice the accumulated batches.

train_in_memory(learn, 1, attempt)     # attempt(1, 0); after an out-of-memory error attempt(2, 1), attempt(4, 2), ...
"""

import gc
from collections.abc import Callable

import torch
from fastai.vision.all import Learner

from kit import processes
from kit.console import say
from kit.errors import TrainingError
from kit.train.state import Snapshot

MAX_HALVINGS = 6
MIN_BATCH = 2  # batch norm needs two
# The last is that of cuBLAS and cuDNN.
TEXTS = ("out of memory", "not enough memory", "can't allocate memory", "status_alloc_failed")


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` is an out-of-memory error of a GPU or of the machine."""
    said = isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TEXTS)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def train_in_memory(learn: Learner, accumulate: int, attempt: Callable[[int, int], None], halvings: int = 0) -> None:
    """Call `attempt(accumulate, halvings)`, again after each out-of-memory error, until the batch was halved six times.

    Before each further call the state from before training is restored, the batch size of the loaders is halved, and
    `accumulate` grows so that a step uses as many images as before. (Batch norm sees smaller batches, so the result is
    not quite that of the original batch size.) halvings: how many times to halve before the first call. Raises
    `TrainingError` after the last call.
    """
    snapshot, batch, images = Snapshot(learn), learn.dls.train.bs, learn.dls.train.bs * accumulate
    while True:
        if halvings:
            accumulate = -(-images // (batch >> halvings))
            for loader in learn.dls.loaders:
                loader.bs = batch >> halvings
        if _fits(learn, halvings, accumulate, attempt):
            return
        # Outside of the except block, so that the traceback no longer holds tensors.
        halvings += 1
        smaller = batch >> halvings
        now = f"{smaller} images a batch, {-(-images // smaller)} batches a step"
        say(f"out of memory: from the start again with {now}")
        _free_memory(learn)
        snapshot.restore()


def _fits(learn: Learner, halvings: int, accumulate: int, attempt: Callable[[int, int], None]) -> bool:
    """Whether the attempt fits into memory; `TrainingError` where it does not and the batch cannot be halved again."""
    try:
        attempt(accumulate, halvings)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if processes.count() > 1:
            problem = f"out of memory in one of {processes.count()} processes, which do not halve the batch themselves"
            raise TrainingError(problem, fix=f"--batch {learn.dls.train.bs // 2}, or more processes") from error
        if halvings == MAX_HALVINGS or learn.dls.train.bs // 2 < MIN_BATCH:
            fix = "a smaller --size, a smaller network (--arch), or a device with more memory"
            raise TrainingError(f"out of memory, with {learn.dls.train.bs} images a batch too", fix=fix) from error
        return False
    return True


def _free_memory(learn: Learner) -> None:
    """Free what the attempt left on the device."""
    learn.model.zero_grad()
    learn.opt = learn.loss_grad = None  # the loss of an attempt that failed in backward holds all its activations
    learn._end_cleanup()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
