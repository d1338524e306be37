"""Settings of the machine: number of cores, heap memory, and cuDNN's precision and determinism.

with keep_freed_memory(): learn.fine_tune(1)        # 1.04 to 1.16 times as fast on two cores: tests/bench/steps.py
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from kit import processes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT_BYTES, LARGEST_BLOCK = 2**31 - 1, 2**30
USUAL_THRESHOLD = 2**25  # the maximum to which glibc raises its threshold by itself


def core_count() -> int:
    """The number of CPU cores that this process may use, apart from those of the processes that train with it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes.local_count())


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within the block, glibc keeps freed memory for reuse; on exit, free memory is returned to the system.

    Activations of a batch take 100 MB a layer. By default glibc returns blocks of that size to the system at once, and
    the system has to clear the same memory again for every layer of every step. No effect with other C libraries.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)
    library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    try:
        yield
    finally:
        library.mallopt(MMAP_THRESHOLD, USUAL_THRESHOLD)
        library.mallopt(TRIM_THRESHOLD, 2 * USUAL_THRESHOLD)
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@contextmanager
def fp32_convolutions() -> Iterator[None]:
    """Within the block, convolutions on a GPU use full fp32 instead of TF32; the setting is restored on exit."""
    import torch

    place, name, off = torch.backends.cudnn, "allow_tf32", False
    try:
        before = place.allow_tf32
    except RuntimeError:  # torch does not read this name where the user has set the newer one, `fp32_precision`
        place, name, off = torch.backends.cudnn.conv, "fp32_precision", "ieee"
        before = place.fp32_precision
    setattr(place, name, off)
    try:
        yield
    finally:
        setattr(place, name, before)


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Within the block, cuDNN uses deterministic algorithms and no benchmark, so that runs are bit-identical."""
    import torch

    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
