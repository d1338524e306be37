"""Several processes that train together, started by torchrun or `accelerate launch`, on one host or several.

torchrun --nproc_per_node 2 -m kit fine-tune photos

Each process runs the same program, and `join` lets them meet. What only one may do, as to read the labels, to split or
to write files, the first process does (`first`), and the others wait for its result. In a process that was started
alone nothing here has an effect. The processes exchange Python objects as pickles, so the network between their hosts
must be private, as torchrun requires anyway.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from kit.errors import KitError, RecipeError, TrainingError, first_line

Value = TypeVar("Value")
PATIENCE = timedelta(days=1)  # for the first process, which may look through millions of files
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")


@dataclass(frozen=True)
class _Group:
    """This process among all. group: of torch.distributed, for numbers and objects on the CPU; store: shared keys."""

    rank: int
    count: int
    local_rank: int
    local_count: int
    group: Any
    store: Any


_joined: _Group | None = None  # None in `first` too
_started = 1


def started() -> int:
    """The number of processes that torchrun or accelerate started together, this one included."""
    return max(_started, int(os.environ.get("WORLD_SIZE") or 1))


def join() -> None:
    """Meet the other processes. Raises `TrainingError` where they do not find one another.

    The variables RANK and WORLD_SIZE are removed: where they are set, fastai gathers predictions and metrics of all
    processes in its own way, which counts some images twice, and also where one process works alone.
    """
    global _joined, _started
    if _joined or started() == 1:
        return
    import torch
    from torch import distributed

    local_rank, local_count = (int(os.environ.get(name) or 0) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(local_rank % gpus)
    backend = "cpu:gloo,cuda:nccl" if local_count <= gpus else "gloo"  # NCCL refuses processes that share a GPU
    try:
        store, rank, count = next(distributed.rendezvous("env://"))
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
        group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        problem = f"the {started()} processes did not meet at {where}: {first_line(error)}"
        fix = "the same torchrun options on each host, a port that is open, GLOO_SOCKET_IFNAME=the network interface"
        raise TrainingError(problem, fix=fix) from error
    for name in ("RANK", "WORLD_SIZE"):
        del os.environ[name]
    _started, _joined = count, _Group(rank, count, local_rank, local_count or 1, group, store)


def check_alone(what: str) -> None:
    """Raise `RecipeError` where several processes were started together for something that one does."""
    if started() > 1:
        problem = f"{what} uses one process, and {started()} were started together"
        raise RecipeError(problem, fix="start it without torchrun or accelerate; kit fine-tune uses several processes")


def count() -> int:
    """The number of processes that train together."""
    return _joined.count if _joined else 1


def rank() -> int:
    """The number of this process, from 0."""
    return _joined.rank if _joined else 0


def local_count() -> int:
    """The number of processes on this host."""
    return _joined.local_count if _joined else 1


def local_rank() -> int:
    """The number of this process on its host, from 0."""
    return _joined.local_rank if _joined else 0


def share(size: int) -> slice:
    """This process's part of `size` items: parts are in the order of the processes, and differ by at most one item."""
    return slice(rank() * size // count(), (rank() + 1) * size // count())


def first(function: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
    """`function(*args, **kwargs)`, called in the first process alone; all return its result, or raise its error.

    During the call there is one process for everything here.
    """
    global _joined
    if _joined is None:
        return function(*args, **kwargs)
    from torch import distributed

    joined, outcome, own = _joined, [None, None], None
    if joined.rank == 0:
        _joined = None
        try:
            outcome[0] = function(*args, **kwargs)
        except Exception as error:
            own = error
            outcome[1] = error if isinstance(error, KitError | OSError) else RuntimeError(str(error))
        finally:
            _joined = joined
    distributed.broadcast_object_list(outcome, group=joined.group)
    if error := own or outcome[1]:
        raise error
    return outcome[0]


@contextmanager
def entered_first(context: AbstractContextManager[Value]) -> Iterator[Value]:
    """A context that the first process alone enters; all get its value."""
    with ExitStack() as stack:
        yield first(stack.enter_context, context)


def gathered(value: Value) -> list[Value]:
    """The values of all processes, in their order."""
    if _joined is None:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * _joined.count
    distributed.all_gather_object(values, value, group=_joined.group)
    return values


def total(*numbers: float) -> list[float]:
    """The sum of each number over all processes; not finite where one of them is not."""
    if _joined is None:
        return list(numbers)
    import torch

    sums = torch.tensor(numbers, dtype=torch.float64)
    torch.distributed.all_reduce(sums, group=_joined.group)
    return sums.tolist()


def send_state(module: Any, buffers_only: bool = False) -> None:
    """Copy parameters and buffers of the first process's module to those of the others."""
    if _joined is None:
        return
    from torch import distributed

    for tensor in [*module.buffers(), *([] if buffers_only else module.parameters())]:
        distributed.broadcast(tensor.data, 0)


def lost(error: BaseException) -> bool:
    """Whether an error says that another process has ended."""
    return _joined is not None and isinstance(error, RuntimeError) and any(text in str(error) for text in LOST)


def speaks_first() -> bool:
    """Whether this process is the first one that asks, so that an error of all is printed once."""
    try:
        return _joined is None or _joined.store.add("kit/errors", 1) == 1
    except RuntimeError:  # the store has gone with the process that held it
        return True
