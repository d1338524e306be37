"""What every request passes first, the page's and REST's alike: who asks, from where, for what, how much, how slowly.

app = Guard(app, hosts=Hosts({"127.0.0.1"}), login=None, limits=Limits(), state=State())

A body is counted as it streams in, so that a missing or wrong Content-Length changes nothing; a client that stalls is
let go; an unforeseen error reaches the client as a number to look for in the log, and as nothing else.
"""

import asyncio
import ipaddress
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kit.serve.reply import FILES, STALLED, TOO_LARGE, App, Receive, Refusal, Reply, Scope, Send, State

if TYPE_CHECKING:
    from kit.serve.login import Login

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEALTH = "/v2/health/"
# The page's files and events. Everything else that Gradio answers to (a proxy, monitoring, an editor) is not there.
PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json")
SIGNING = ("/login", "/logout")
FOLDERS = ("/assets/", "/static/", "/v1/", HEALTH)
EVENTS = (
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/queue/join",
    "/gradio_api/run/predict",
    "/gradio_api/queue/data",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/info",
    "/gradio_api/startup-events",
)
HEARTBEAT = "/gradio_api/heartbeat/"
STREAMS = (HEARTBEAT, "/gradio_api/queue/data")
MOST_STREAMS, MOST_DIGITS = 500, 15
SET_ASIDE = (b"cookie", b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")
EXACT = frozenset((*PAGES, *SIGNING, *EVENTS, "/metrics"))
BELOW = (*FOLDERS, FILES, HEARTBEAT)


@dataclass(frozen=True)
class Limits:
    """How much and how long: bytes of a body, seconds of silence while it arrives, seconds until it is complete."""

    upload: int = 10_000_000
    silence: float = 10.0
    whole: float = 120.0


@dataclass
class Hosts:
    """The names by which this server may be called. any_address: whether any plain IP address is one of them, as it
    is for a server that listens on all of them (a page elsewhere can forge a name, not an address). tunnels: names
    that lead here by https, through a tunnel."""

    names: set[str]
    any_address: bool = False
    tunnels: set[str] = field(default_factory=set)

    def allows(self, host: str) -> bool:
        """host: as in the Host header, with or without a port."""
        name = _name(host)
        return name in self.names or self.is_tunnel(host) or (self.any_address and _is_address(name))

    def is_tunnel(self, host: str) -> bool:
        """Whether whoever calls the server so came through a tunnel."""
        return _name(host) in self.tunnels

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may use the server that it calls `host`: only the server's own."""
        try:
            return urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False


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
    """A request's body on its way in: counted and timed. refusal: why no more of it is read; left: whether the client
    has gone."""

    def __init__(self, receive: Receive, limits: Limits):
        self.receive, self.limits, self.refusal, self.left = receive, limits, None, False
        self.bytes, self.complete, self.until = 0, False, time.monotonic() + limits.whole

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next message, or "the client has left" once there is a refusal."""
        if self.refusal:
            return {"type": "http.disconnect"}
        try:
            message = await self._next()
        except TimeoutError:
            return self._refuse(
                STALLED, "the request did not arrive in time", "send it again, over a quicker connection"
            )
        self.left = message["type"] == "http.disconnect"
        self.bytes += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self.bytes > self.limits.upload:
            return self._refuse(*too_large(self.limits.upload))
        return message

    async def _next(self) -> MutableMapping[str, Any]:
        if self.complete:
            return await self.receive()
        async with asyncio.timeout(min(self.limits.silence, self.until - time.monotonic())):
            return await self.receive()

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
        self.streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI hands it over."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = self.arrived(scope)
        reply = Reply(scope, send, self.state, receive)
        body = reply.body = Body(receive, self.limits)
        try:
            self.check(scope)
            await self._serve(scope, body, reply)
        except Refusal as refusal:
            body.refusal = body.refusal or refusal
        except Exception as error:
            if not body.refusal and not body.left:
                reply.failure = error
        await reply.finish()

    def arrived(self, scope: Scope) -> Scope:
        """The request, with what is believed of how it came.

        By https: through the tunnel, or where the browser or a proxy says so; who lies about that deceives himself.
        From whom: all that come through the tunnel are one client. Under which name: Host alone says that. Of its
        cookies, only the login's own.
        """
        headers = dict(scope["headers"])
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin", b"")
        tunnel = self.hosts.is_tunnel(host)
        secure = tunnel or origin.startswith(b"https:") or headers.get(b"x-forwarded-proto") == b"https"
        kept = [pair for pair in scope["headers"] if pair[0] not in SET_ASIDE]
        if self.login and (cookie := self.login.own_cookie(headers.get(b"cookie", b""))):
            kept.append((b"cookie", cookie))
        came = {"headers": kept, "scheme": "https" if secure else scope.get("scheme", "http")}
        return {**scope, **came, "client": ("tunnel", 0) if tunnel else scope.get("client")}

    def check(self, scope: Scope) -> None:
        """Raise `Refusal` for what need not even be read."""
        headers, path = dict(scope["headers"]), scope["path"]
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.hosts.allows(host):
            fix = "call it by the address it printed, or start it with --allow-host NAME"
            raise Refusal(421, "this server has another name", fix=fix)
        self._check_origin(headers, host)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > MOST_DIGITS or int(length) > self.limits.upload:
            status, problem, fix = too_large(self.limits.upload)
            raise Refusal(status, problem, fix=fix, headers=[("Connection", "close")])
        if not is_route(path) or (not self.login and path in SIGNING):
            raise Refusal(404, "there is nothing here", fix="the page is at /, the API at /v1/predict and /v1/model")
        if self.login and not path.startswith(HEALTH) and path != "/login":
            self.login.check(scope)

    def _check_origin(self, headers: dict[bytes, bytes], host: str) -> None:
        origin = headers.get(b"origin")
        foreign = origin is not None and not self.hosts.is_own(origin.decode("latin-1"), host)
        elsewhere = headers.get(b"sec-fetch-site") == b"cross-site" and headers.get(b"sec-fetch-mode") != b"navigate"
        if foreign or elsewhere:
            raise Refusal(403, "another page may not use this server", fix="open this server's own page")

    async def _serve(self, scope: Scope, body: Body, reply: Reply) -> None:
        """Let it through. The page's streams may stay open for ever: not all connections may be that."""
        if not scope["path"].startswith(STREAMS):
            await self.app(scope, body, reply)
            return
        if self.streams >= MOST_STREAMS:
            raise Refusal(503, "too many visitors at once", fix="try again in a moment")
        self.streams += 1
        try:
            await self._stream(scope, body, reply)
        finally:
            self.streams -= 1

    async def _stream(self, scope: Scope, body: Body, reply: Reply) -> None:
        """A heartbeat never ends by itself: a server that stops does not wait for it."""
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
    return path in EXACT or path.startswith(BELOW)
