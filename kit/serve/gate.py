"""How many may be served at once, by the page and by REST together: some at work, some waiting, a 503 for the others.

gate = Gate(workers=2, queue=10); predictor = in_turn(predictor, gate.turns); await gate.run(work, left)

Two limits. Places: how many are let in; REST counts its own, the page's events are counted where Gradio keeps them.
Turns: how many images are decoded or computed at one time. A job of a thousand images takes a turn for each, so that
others come between.
"""

import asyncio
import copy
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeVar

from kit.bundle.predictor import Predictor
from kit.serve.reply import Refusal

Result = TypeVar("Result")


class Left(Exception):
    """The client has gone: nobody waits for the answer."""


class Turns:
    """At most `most` threads at once, in the order in which they came: a turn is handed on, nobody can snatch it."""

    def __init__(self, most: int):
        self.free, self.lock, self.waiting = most, threading.Lock(), deque()

    def __enter__(self) -> None:
        mine = threading.Event()
        with self.lock:
            if self.free:
                self.free -= 1
                return
            self.waiting.append(mine)
        mine.wait()

    def __exit__(self, *error: object) -> None:
        with self.lock:
            if self.waiting:
                self.waiting.popleft().set()
            else:
                self.free += 1

    def around(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, that waits for its turn. It must not call another one that does."""

        @wraps(function)
        def run(*values: object) -> Result:
            with self:
                return function(*values)

        return run


def in_turn(predictor: Predictor, turns: Turns) -> Predictor:
    """The same predictor, each image of which waits for its turn: once to be decoded, once to be computed."""
    shared = copy.copy(predictor)
    shared.prepare, shared.engine = turns.around(predictor.prepare), turns.around(predictor.engine)
    return shared


class Gate:
    """At most `workers` jobs run, at most `queue` wait. elsewhere: counts the jobs that something else has let in."""

    def __init__(self, workers: int, queue: int, elsewhere: Callable[[], int] = lambda: 0):
        self.places, self.own, self.elsewhere = workers + queue, 0, elsewhere
        self.turn, self.turns = asyncio.Semaphore(workers), Turns(workers)

    @property
    def inside(self) -> int:
        """How many work or wait now."""
        return self.own + self.elsewhere()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises `Refusal` at once where none is free."""
        if self.inside >= self.places:
            again = [("Retry-After", "1")]
            raise Refusal(503, "too many requests at once", fix="try again in a moment", headers=again)
        self.own += 1
        try:
            yield
        finally:
            self.own -= 1

    async def run(self, work: Callable[[threading.Event], Result], left: Callable[[], Awaitable]) -> Result:
        """Run `work` in a thread when it is its turn. Raises `Refusal` at once where no place is free.

        work: is given an event; it should stop soon after that is set. left: awaited, it ends when the client has
        gone; a job that waits is then dropped, one that runs is told, and `Left` is raised.
        """
        with self.place():
            job, gone = asyncio.ensure_future(self._take_turn(work)), asyncio.ensure_future(left())
            try:
                await asyncio.wait((job, gone), return_when=asyncio.FIRST_COMPLETED)
                if not job.done():
                    raise Left
                return job.result()
            finally:
                for task in (job, gone):
                    task.cancel()

    async def _take_turn(self, work: Callable[[threading.Event], Result]) -> Result:
        async with self.turn:
            stop = threading.Event()
            thread = asyncio.ensure_future(asyncio.to_thread(work, stop))
            try:
                return await asyncio.shield(thread)
            except asyncio.CancelledError:
                # A thread cannot be interrupted: its place is free when it has really ended.
                stop.set()
                await asyncio.wait([thread])
                thread.exception()  # Nobody waits for it; asked for, it is not complained about.
                raise
