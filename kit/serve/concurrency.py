"""Limit the number of concurrent requests: some are computed, some wait in a queue, the rest get a 503.

capacity, pool = Capacity(12), ThreadPoolExecutor(2)
with capacity.slot(): rows = await unless_disconnected(request, predict_in(pool, predictor, images))

One thread pool decodes and computes the images of the page and of the REST API one by one, in the order in which they
were submitted. A request with many images submits a few at a time, so that it does not block other requests.
"""

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from kit.bundle.predictor import Predictor
from kit.serve.responses import RequestError

Result = TypeVar("Result")


class Capacity:
    """At most `limit` concurrent requests, or bytes. elsewhere: counts those of other code (Gradio's queue)."""

    def __init__(self, limit: int, elsewhere: Callable[[], int] = lambda: 0):
        self.limit, self.elsewhere, self.own = limit, elsewhere, 0

    @property
    def used(self) -> int:
        """The number of requests that are being computed or wait, or of bytes."""
        return self.own + self.elsewhere()

    def check(self, count: int = 1) -> None:
        """Raise `RequestError` (503) if fewer than `count` are free."""
        if self.used + count > self.limit:
            again = {"Retry-After": "1"}
            raise RequestError(503, "too many requests at once", fix="try again in a moment", headers=again)

    @contextmanager
    def slot(self, count: int = 1) -> Iterator[None]:
        """Hold `count` of them while the `with` block runs. Raises `RequestError` (503) if too few are free."""
        self.check(count)
        self.own += count
        try:
            yield
        finally:
            self.own -= count


class Line:
    """Visitors who take turns: the first has the turn until it leaves, or is not seen for `patience` seconds.

    clock: a function that returns seconds.
    """

    def __init__(self, patience: float = 15.0, clock: Callable[[], float] = time.monotonic):
        self.patience, self.clock, self.lock, self.seen = patience, clock, threading.Lock(), {}

    def ahead(self, visitor: str) -> int:
        """How many are ahead of the visitor, who joins the line or keeps its place in it; 0 where it has the turn."""
        with self.lock:
            now = self.clock()
            self.seen = {one: then for one, then in self.seen.items() if then > now - self.patience}
            self.seen[visitor] = now
            return list(self.seen).index(visitor)

    def leave(self, visitor: str) -> None:
        """Give up the place in the line."""
        with self.lock:
            self.seen.pop(visitor, None)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`. If the client disconnects first, cancel it and raise `ClientDisconnect`."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    job, left = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait((job, left), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientDisconnect
        return job.result()
    finally:
        job.cancel()
        left.cancel()


def in_pool(predictor: Predictor, pool: Executor) -> Predictor:
    """A copy of the predictor that decodes and computes each image in the pool. A thread of the pool must not use it:
    it would wait for itself."""

    def submitted(function: Callable) -> Callable:
        return lambda *values: pool.submit(function, *values).result()

    shared = copy.copy(predictor)
    shared.prepare, shared.engine = submitted(predictor.prepare), submitted(predictor.engine)
    return shared
