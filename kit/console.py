"""Telling people what happens: progress bars on a terminal, plain lines in a log, errors in red.

for image in progress(images, "predict"): ...
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")


def terminal() -> bool:
    """Whether a person is likely to watch standard error."""
    return sys.stderr.isatty()


def say(text: str = "") -> None:
    """Print one line for people. It goes to standard error: standard output is kept for results."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print an error for people, in red on a terminal."""
    _console(soft_wrap=True, highlight=False).print(f"error: {text}", style="red", markup=False)


def progress(items: Sequence[Item] | Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items, with a bar on a terminal and nothing in a log."""
    if not terminal():
        yield from items
        return
    from rich.progress import track

    size = len(items) if total is None and hasattr(items, "__len__") else total
    yield from track(items, description=title, total=size, console=_console(), transient=True)


@contextmanager
def byte_bar(title: str, total: int | None, start: int = 0) -> Iterator:
    """A function to call with every number of bytes that arrived; it draws a bar on a terminal."""
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
    """Rich is imported here, when there is something to draw: a quick command never waits for it."""
    from rich.console import Console

    return Console(stderr=True, **options)
