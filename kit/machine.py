"""What the machine gives: how many cores, and memory that stays while it is needed again and again.

with heap_kept(): learn.fine_tune(1)        # 1.04 to 1.16 times as quick on two cores: tests/bench/steps.py
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's own names for them, in glibc's malloc.h
KEEP, PIECE = 2**31 - 1, 2**30
USUAL = 2**25  # what glibc's threshold grows to by itself when large pieces are freed


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def heap_kept() -> Iterator[None]:
    """Meanwhile freed memory waits in this process; afterwards what is free goes back to the system.

    A layer's output of a batch is a hundred megabytes. glibc takes such pieces from the system one by one and gives
    each back at once, so that the system clears the same memory for every layer of every step. Other C libraries stay
    as they are, and so does a GPU's memory.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_THRESHOLD, PIECE)
    library.mallopt(TRIM_THRESHOLD, KEEP)
    try:
        yield
    finally:
        library.mallopt(MMAP_THRESHOLD, USUAL)
        library.mallopt(TRIM_THRESHOLD, 2 * USUAL)
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in full fp32 on a GPU."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def repeatable_algorithms() -> Iterator[None]:
    """cuDNN's deterministic algorithms, chosen without timing them, so that a run can be repeated in every bit."""
    import torch

    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
