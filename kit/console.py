"""Messages on standard error: lines, progress bars where it is a terminal, and errors in red; events for programs.

Of several processes that train together the first one prints; an error of all is printed once.

for image in progress(images, "predict"): ...
with json_lines(): emit("epoch", epoch=1, valid_loss=0.3)     # {"event": "epoch", "epoch": 1, "valid_loss": 0.3}
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from kit import processes
from kit.errors import KitError, Terminated

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

_emitted = False  # whether events are printed


def terminal() -> bool:
    """Whether standard error is a terminal that this process writes to."""
    return sys.stderr.isatty() and processes.rank() == 0


def say(text: str = "") -> None:
    """Print a message to standard error; standard output is for results."""
    if processes.rank() == 0:
        print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print an error message to standard error, in red on a terminal."""
    if processes.speaks_first():
        _console(soft_wrap=True, highlight=False).print(f"error: {text}", style="red", markup=False)


@contextmanager
def json_lines() -> Iterator[None]:
    """Print events to standard output in this block, each as a JSON object on a line."""
    global _emitted
    before, _emitted = _emitted, True
    try:
        yield
    except KitError as error:
        emit("error", problem=error.problem, fix=error.fix)
        raise
    except (KeyboardInterrupt, Terminated):
        emit("stopped")
        raise
    finally:
        _emitted = before


def emit(event: str, **fields: Any) -> None:
    """Tell programs what happened, where they asked for it (`json_lines`); numbers that are not finite become null."""
    if _emitted and processes.rank() == 0:
        print(json.dumps({"event": event} | _finite(fields)), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def progress(items: Sequence[Item] | Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show a progress bar on a terminal. total: their number, for iterators."""
    if not terminal():
        yield from items
        return
    from rich.progress import track

    size = len(items) if total is None and hasattr(items, "__len__") else total
    yield from track(items, description=title, total=size, console=_console(), transient=True)


@contextmanager
def byte_bar(title: str, total: int | None, start: int = 0) -> Iterator:
    """A progress bar of a download: a function to call with the number of bytes in each block received."""
    if not terminal():
        yield lambda count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(), transient=True) as bar:
        task = bar.add_task(title, total=total, completed=start)
        yield lambda count: bar.update(task, advance=count)


def _console(**options: Any) -> "Console":
    """Import rich only when something is drawn, to keep short commands fast."""
    from rich.console import Console

    return Console(stderr=True, **options)
