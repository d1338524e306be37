"""How many may be served at once: some at work, some in the queue, and a plain 503 for those beyond it.

gate = Gate(workers=2, queue=10); await gate.run(work, left)
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kit.serve.reply import Refusal

Result = TypeVar("Result")


class Left(Exception):
    """The client has gone: nobody waits for the answer."""


class Gate:
    """At most `workers` jobs run, at most `queue` wait."""

    def __init__(self, workers: int, queue: int):
        self.places, self.inside, self.turn = workers + queue, 0, asyncio.Semaphore(workers)

    async def run(self, work: Callable[[threading.Event], Result], left: Callable[[], Awaitable]) -> Result:
        """Run `work` in a thread when it is its turn. Raises `Refusal` at once where the queue is full.

        work: is given an event; it should stop soon after that is set. left: awaited, it ends when the client has
        gone; a job that waits is then dropped, one that runs is told, and `Left` is raised.
        """
        if self.inside >= self.places:
            again = [("Retry-After", "1")]
            raise Refusal(503, "too many requests at once", fix="try again in a moment", headers=again)
        self.inside += 1
        job, gone = asyncio.ensure_future(self._take_turn(work)), asyncio.ensure_future(left())
        try:
            await asyncio.wait((job, gone), return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise Left
            return job.result()
        finally:
            self.inside -= 1
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
                raise
