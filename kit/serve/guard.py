"""What every request passes first, the page's and REST's alike: who asks, from where, for what, how much, how slowly.

app = Guard(app, hosts=Hosts({"127.0.0.1"}), login=None, limits=Limits(), state=State())

A body is counted as it streams in, so that a missing or wrong Content-Length changes nothing; a client that stalls is
let go; an unforeseen error reaches the client as a number to look for in the log, and as nothing else.
"""

import asyncio
import ipaddress
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kit.serve.reply import FILES, TOO_LARGE, App, Receive, Refusal, Reply, Scope, Send, State

if TYPE_CHECKING:
    from kit.serve.login import Login

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEALTH = "/v2/health/"
# The page's files and events. Everything else that Gradio answers to (a proxy, monitoring, an editor) is not there.
PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/login", "/logout")
FOLDERS = ("/assets/", "/static/", "/v1/", HEALTH)
EVENTS = (
    "upload",
    "upload_progress",
    "queue/join",
    "run/predict",
    "queue/data",
    "cancel",
    "reset",
    "info",
    "startup-events",
)
HEARTBEAT = "/gradio_api/heartbeat/"


@dataclass(frozen=True)
class Limits:
    """How much and how long: bytes of a body, seconds of silence while it arrives, seconds until it is complete."""

    upload: int = 10_000_000
    silence: float = 10.0
    whole: float = 120.0


@dataclass
class Hosts:
    """The names by which this server may be called. any_address: whether any plain IP address is one of them, as it
    is for a server that listens on all of them (a page elsewhere can forge a name, not an address)."""

    names: set[str]
    any_address: bool = False

    def allows(self, host: str) -> bool:
        """host: as in the Host header, with or without a port."""
        name = _name(host)
        return name in self.names or (self.any_address and _is_address(name))

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may use the server that it calls `host`: only the server's own."""
        return urlsplit(origin).netloc.lower() == host.lower()


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Body:
    """A request's body on its way in: counted and timed. `refusal`: why no more of it is read."""

    def __init__(self, receive: Receive, limits: Limits):
        self.receive, self.limits, self.refusal = receive, limits, None
        self.bytes, self.complete, self.until = 0, False, time.monotonic() + limits.whole

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next message, or "the client has left" once there is a refusal."""
        if self.refusal:
            return {"type": "http.disconnect"}
        if self.complete:
            return await self.receive()
        try:
            async with asyncio.timeout(min(self.limits.silence, self.until - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            return self._refuse(408, "the request did not arrive in time", "send it again, over a quicker connection")
        self.bytes += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self.bytes > self.limits.upload:
            return self._refuse(*too_large(self.limits.upload))
        return message

    def _refuse(self, status: int, problem: str, fix: str) -> MutableMapping[str, Any]:
        self.refusal = Refusal(status, problem, fix=fix, headers=[("Connection", "close")])
        return {"type": "http.disconnect"}


def too_large(most: int) -> tuple[int, str, str]:
    """The status, the problem and the fix for a body over the limit."""
    return (
        TOO_LARGE,
        f"more than {most:,} bytes",
        "send smaller images, or fewer at a time; the server's limit: --max-upload",
    )


class Guard:
    """An ASGI app that lets a request through to another one, or refuses it."""

    def __init__(self, app: App, *, hosts: Hosts, login: "Login | None", limits: Limits, state: State):
        self.app, self.hosts, self.login, self.limits, self.state = app, hosts, login, limits, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI hands it over."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(scope, send, self.state, receive)
        try:
            self.check(scope)
        except Refusal as refusal:
            await reply.refuse(refusal)
            return
        body = reply.body = Body(receive, self.limits)
        try:
            await self._serve(scope, body, reply)
        except Refusal as refusal:
            body.refusal = body.refusal or refusal
        except Exception as error:
            if not body.refusal:
                reply.failure = error
        await reply.finish()

    def check(self, scope: Scope) -> None:
        """Raise `Refusal` for what need not even be read."""
        headers, path = dict(scope["headers"]), scope["path"]
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.hosts.allows(host):
            fix = "call it by the address it printed, or start it with --allow-host NAME"
            raise Refusal(421, "this server has another name", fix=fix)
        self._check_origin(headers, host)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limits.upload:
            status, problem, fix = too_large(self.limits.upload)
            raise Refusal(status, problem, fix=fix, headers=[("Connection", "close")])
        if not is_route(path):
            raise Refusal(404, "there is nothing here", fix="the page is at /, the API at /v1/predict and /v1/model")
        if self.login and not path.startswith(HEALTH) and path != "/login":
            self.login.check(scope)

    def _check_origin(self, headers: dict[bytes, bytes], host: str) -> None:
        origin = headers.get(b"origin")
        foreign = origin is not None and not self.hosts.is_own(origin.decode("latin-1"), host)
        elsewhere = headers.get(b"sec-fetch-site") == b"cross-site" and headers.get(b"sec-fetch-mode") != b"navigate"
        if foreign or elsewhere:
            raise Refusal(403, "another page may not use this server", fix="open this server's own page")

    async def _serve(self, scope: Scope, body: Body, reply: "Reply") -> None:
        """Let it through. A page's heartbeat never ends by itself: a server that stops does not wait for it."""
        if not scope["path"].startswith(HEARTBEAT):
            await self.app(scope, body, reply)
            return
        tasks = [asyncio.ensure_future(self.app(scope, body, reply)), asyncio.ensure_future(self.state.stopping.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def is_route(path: str) -> bool:
    """Whether something may answer at `path`."""
    if ".." in path or "\\" in path or "\0" in path or "//" in path.removeprefix(FILES):
        return False
    events = tuple(f"/gradio_api/{name}" for name in EVENTS)
    return path in PAGES or path in events or path.startswith((*FOLDERS, FILES, HEARTBEAT)) or path == "/metrics"
