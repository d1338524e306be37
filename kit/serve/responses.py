"""Errors as HTTP responses: the problem and its fix, or for an unexpected error a number to look up in the log.

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

USAGE = "the page is at /, the API at /v1/predict and /v1/model"
LOG = logging.getLogger("kit.serve")


class RequestError(KitError):
    """A refused request: the HTTP `status`, the problem, its fix, and further response headers."""

    def __init__(self, status: int, problem: str, *, fix: str, headers: Mapping[str, str] | None = None):
        super().__init__(problem, fix=fix)
        self.status, self.headers = status, headers

    @property
    def response(self) -> JSONResponse:
        """The error as a JSON response with the fields error and fix."""
        return JSONResponse({"error": self.problem, "fix": self.fix}, self.status, self.headers)


def internal_error(error: BaseException) -> RequestError:
    """Log an unexpected error with a random number, and return the error for the client, which has only the number."""
    number = secrets.token_hex(4)
    LOG.error("error %s", number, exc_info=error)
    return RequestError(500, f"something went wrong (number {number})", fix="tell the server's owner this number")


def not_allowed(method: str, path: str, allowed: str) -> RequestError:
    """The error (405) for a method that a path does not have."""
    return RequestError(405, f"{method} is not possible at {path}", fix=f"use {allowed}", headers={"Allow": allowed})


async def http_error(request: Request, error: HTTPException) -> JSONResponse:
    """FastAPI's exception handler for its own errors."""
    if error.status_code == 405:
        allowed = error.headers["Allow"].replace("GET", "GET, HEAD")
        return not_allowed(request.method, request.scope["path"], allowed).response
    return JSONResponse({"error": str(error.detail), "fix": USAGE}, error.status_code, error.headers)


@dataclass
class State:
    """The server's state: whether it accepts requests, whether it is stopping, and counters for /metrics."""

    ready: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    answers: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    seconds: float = 0.0
