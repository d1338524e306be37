"""Out of memory: the same training again with half the batch, and twice the batches in a step.

trained_in_memory(learn, 1, attempt)         # attempt(1); where memory does not suffice, attempt(2), attempt(4), ...
"""

import gc
from collections.abc import Callable

import torch
from fastai.vision.all import Learner

from kit.console import say
from kit.errors import TrainingError
from kit.train.state import Beginning

MOST_HALVINGS = 6
SMALLEST_BATCH = 2  # batch norm needs two
TEXTS = ("out of memory", "not enough memory", "can't allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of a GPU, or of the machine, did not suffice."""
    said = isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TEXTS)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def trained_in_memory(learn: Learner, accumulate: int, attempt: Callable[[int], None]) -> int:
    """Call `attempt(accumulate)` until the memory suffices, at most six times more; returns how often it did not.

    Each time everything is put back to the beginning, the loaders' batch is halved, and `accumulate` grows so that a
    step sees as many images as before: the run is the one that this smaller batch would have given from the start.
    (Batch norm sees smaller batches, so it is not quite the run that was asked for.) Raises `TrainingError` in the end.
    """
    beginning, images, halvings = Beginning(learn), learn.dls.train.bs * accumulate, 0
    while not _fits(learn, halvings, accumulate, attempt):
        # Out here, where the error and the tensors that its traceback held are gone.
        halvings, batch = halvings + 1, learn.dls.train.bs // 2
        accumulate = -(-images // batch)
        say(f"out of memory: from the start again with {batch} images a batch, {accumulate} batches a step")
        _make_room(learn)
        beginning.put_back()
        for loader in learn.dls.loaders:
            loader.bs = batch
    return halvings


def _fits(learn: Learner, halvings: int, accumulate: int, attempt: Callable[[int], None]) -> bool:
    """Whether memory suffices for the attempt; `TrainingError` where it does not and the batch is halved no more."""
    try:
        attempt(accumulate)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if halvings == MOST_HALVINGS or learn.dls.train.bs // 2 < SMALLEST_BATCH:
            fix = "a smaller --size, a smaller network (--arch), or a device with more memory"
            raise TrainingError(f"out of memory, with {learn.dls.train.bs} images a batch too", fix=fix) from error
        return False
    return True


def _make_room(learn: Learner) -> None:
    """Let go of what the attempt left on the device."""
    learn.model.zero_grad()
    learn.opt = None
    learn._end_cleanup()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
