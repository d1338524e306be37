"""Errors as HTTP responses: what is wrong and how to mend it, or a number to look for in the log.

raise RequestError(422, "no images", fix="send one")
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from kit.errors import KitError

LOG = logging.getLogger("kit.serve")


class RequestError(KitError):
    """A request that is not served: the HTTP `status`, what is wrong, what to do about it, and further headers."""

    def __init__(self, status: int, problem: str, *, fix: str, headers: Mapping[str, str] | None = None):
        super().__init__(problem, fix=fix)
        self.status, self.headers = status, headers

    @property
    def response(self) -> JSONResponse:
        """The error as JSON."""
        return JSONResponse({"error": self.problem, "fix": self.fix}, self.status, self.headers)


def internal_error(error: BaseException) -> RequestError:
    """Log an unforeseen error under a number. The client is told the number and nothing else."""
    number = secrets.token_hex(4)
    LOG.error("error %s", number, exc_info=error)
    return RequestError(500, f"something went wrong (number {number})", fix="tell the server's owner this number")


async def http_error(_: Request, error: HTTPException) -> JSONResponse:
    """FastAPI's own errors, such as an unknown route, in the same form."""
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


@dataclass
class State:
    """What the server is doing: whether it takes requests, whether it is stopping, and counters for /metrics."""

    ready: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    answers: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    seconds: float = 0.0
