"""What every request is answered with: the app's own words with safe headers, or why not, or a number for the log.

raise Refusal(422, "no images", fix="send one")
"""

import asyncio
import json
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from h11 import LocalProtocolError

from kit.errors import KitError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG = logging.getLogger("kit.serve")
FILES = "/gradio_api/file="
TOO_LARGE, STALLED = 413, 408
DRAIN_SECONDS = 3.0
POLICY = "; ".join(
    (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"content-security-policy", POLICY.encode()),
]
SHOWN = (b"image/jpeg", b"image/png", b"image/webp", b"image/gif", b"image/bmp")


class Refusal(KitError):
    """A request that is not served: the HTTP `status`, what is wrong, and what to do about it."""

    def __init__(self, status: int, problem: str, *, fix: str, headers: Iterable[tuple[str, str]] = ()):
        super().__init__(problem, fix=fix)
        self.status, self.headers = status, list(headers)


@dataclass
class State:
    """What the server is doing: whether it takes requests, whether it is stopping, and what it has answered."""

    ready: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    answers: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    seconds: float = 0.0


class Reply:
    """The answer on its way out, with the headers that every answer has. It becomes a refusal where the body was
    refused before the answer began, and a number for the log where the app failed."""

    def __init__(self, scope: Scope, send: Send, state: State, receive: Receive):
        self.path, self.channel, self.state = scope["path"], send, state
        expects = dict(scope["headers"]).get(b"expect")
        self.receive = None if expects else receive
        self.body: Any = None
        self.begun, self.failure, self.broken = False, None, False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Pass one message of the app on to the client."""
        if self._left() or (not self.begun and (self._refused() or self.failure)):
            return
        if message["type"] == "http.response.start":
            if message["status"] == 500:
                self.failure = RuntimeError("answered with 500")
                return
            self._count(message["status"])
            message = {**message, "headers": self._headers(list(message["headers"]))}
        await self._send(message)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        """To the client, as long as the connection has not been given up because of what it sent."""
        try:
            await self.channel(message)
        except LocalProtocolError:
            self.broken = True

    def _refused(self) -> Refusal | None:
        return self.body.refusal if self.body else None

    def _left(self) -> bool:
        """Whether nobody listens any more. What happens then, even a failure, is of no interest to the log."""
        return self.broken or bool(self.body and self.body.left)

    def _count(self, status: int) -> None:
        self.begun = True
        self.state.answers[status] += 1

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Files that people uploaded are shown where they are pictures, and downloaded as they are where not."""
        if self.path.startswith(FILES):
            kind = dict(headers).get(b"content-type", b"").split(b";")[0]
            headers = [pair for pair in headers if pair[0] not in (b"cache-control", b"content-disposition")]
            headers.append((b"cache-control", b"private, no-store"))
            if kind not in SHOWN:
                headers = [pair for pair in headers if pair[0] != b"content-type"]
                headers += [(b"content-type", b"application/octet-stream"), (b"content-disposition", b"attachment")]
        return headers + HEADERS

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with why not, as JSON."""
        text = json.dumps({"error": refusal.problem, "fix": refusal.fix}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in refusal.headers] + HEADERS
        self._count(refusal.status)
        await self._send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": text, "more_body": True})
        if self._still_comes() and refusal.status != STALLED:
            await drain(self.receive)
        await self._send({"type": "http.response.body", "body": b""})

    def _still_comes(self) -> bool:
        """Whether there may be more of the body on its way; one that waits to be asked for it is not."""
        return bool(self.receive and self.body and not self.body.complete and not self._left())

    async def finish(self) -> None:
        """After the app: say what it did not."""
        if self._left():
            return
        if self.failure:
            refusal = failed(self.failure)
            if not self.begun:
                await self.refuse(refusal)
        elif (refusal := self._refused()) and not self.begun:
            await self.refuse(refusal)


async def drain(receive: Receive) -> None:
    """Let a client that is refused go on sending for a while: closed at once, it would never read why."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass


def failed(error: BaseException) -> Refusal:
    """Write an unforeseen error to the log under a number, and return what the client is told: the number."""
    number = secrets.token_hex(4)
    LOG.error("error %s", number, exc_info=error)
    return Refusal(500, f"something went wrong (number {number})", fix="tell the server's owner this number")
