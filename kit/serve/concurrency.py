"""How many requests are served at once: some at work, some waiting, a 503 for the rest.

capacity, pool = Capacity(12), ThreadPoolExecutor(2)
with capacity.slot(): rows = await unless_disconnected(request, work_in(pool))

The thread pool decodes and computes images one by one, in the order in which they were submitted, for the page and for
REST together. A request of many images therefore does not keep the others waiting.
"""

import asyncio
import copy
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from kit.bundle.predictor import Predictor
from kit.serve.responses import RequestError

Result = TypeVar("Result")


class Capacity:
    """At most `limit` requests at once. elsewhere: counts those that something else has admitted."""

    def __init__(self, limit: int, elsewhere: Callable[[], int] = lambda: 0):
        self.limit, self.elsewhere, self.own = limit, elsewhere, 0

    @property
    def used(self) -> int:
        """How many requests are admitted now."""
        return self.own + self.elsewhere()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the places. Raises `RequestError` at once where none is free."""
        if self.used >= self.limit:
            again = {"Retry-After": "1"}
            raise RequestError(503, "too many requests at once", fix="try again in a moment", headers=again)
        self.own += 1
        try:
            yield
        finally:
            self.own -= 1


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled where the client leaves first. Raises `ClientDisconnect` then."""

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
    """The same predictor, which decodes and computes each image in the pool and waits for it. Not for use inside it."""

    def submitted(function: Callable) -> Callable:
        return lambda *values: pool.submit(function, *values).result()

    shared = copy.copy(predictor)
    shared.prepare, shared.engine = submitted(predictor.prepare), submitted(predictor.engine)
    return shared
