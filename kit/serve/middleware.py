"""ASGI middleware for all requests: checks host, origin and login, and limits the size and duration of the body.

app = SecurityMiddleware(app, hosts=Hosts({"127.0.0.1"}), login=None, max_upload=10**7, patience=10.0, state=State())

Behind a reverse proxy, X-Forwarded-Host, -Prefix and -Proto are read from a proxy on this machine or one that --proxy
names, X-Forwarded-For only from the latter: nginx passes on what a client sends in these headers, and a client could
choose the address under which its wrong passwords are counted. Spoofing the others affects only the sender.

Starlette and uvicorn do not limit bodies. Starlette's TrustedHostMiddleware can allow neither all IP addresses nor a
host that becomes known later (a tunnel's), and its error does not say how to allow a host.
"""

import asyncio
import ipaddress
import random
import re
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from h11 import LocalProtocolError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.serve.concurrency import Capacity
from kit.serve.responses import RequestError, State, internal_error

if TYPE_CHECKING:
    from kit.serve.login import Login

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto")
PREFIX = re.compile(r"(/[\w.~%-]+)*")
ASSETS = ("/assets/", "/static/")
TRAILING_SLASH = re.compile(r"/(?!gradio_api/)[\w./-]*\w/")
WITHOUT_LOGIN = ("/login", "/favicon.ico", "/v2/health/live", "/v2/health/ready")
WHOLE_BODY_SECONDS = 120.0
# A client that is refused because the server is full is told so at once; its next request is read so much later.
DISCARD_SECONDS, PAUSE_SECONDS = 2.0, 1.0
# Bytes of all bodies together that are in memory at one time; twice --max-upload where that is more.
MAX_BODIES = 128_000_000
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
}


@dataclass
class Hosts:
    """The host names that requests may use for this server.

    any_address: whether any IP address is allowed, for a server that listens on all interfaces. (DNS rebinding attacks
    need a host name.) origins: host names whose pages may send requests, although a proxy changed the Host header.
    tunnels: host names of https tunnels to this server.
    """

    names: set[str]
    any_address: bool = False
    origins: set[str] = field(default_factory=set)
    tunnels: set[str] = field(default_factory=set)

    def allows(self, host: str) -> bool:
        """Whether the value of a Host header, with or without a port, is allowed."""
        name = hostname(host)
        return name in self.names or name in self.tunnels or (self.any_address and _is_address(name))

    def is_tunnel(self, host: str) -> bool:
        """Whether the value of a Host header is that of a tunnel."""
        return hostname(host) in self.tunnels


def hostname(host: str) -> str:
    """The lower-case name in the value of a Host header; "" where there is none."""
    with suppress(ValueError):
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    return ""


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


class Body:
    """The body of a request, with limits: `max_upload` bytes, `patience` seconds of silence, and a total time.

    reserve: called with a number of further bytes; raises `RequestError` if there is no memory for them.
    complete: whether the whole body has been received. left: whether the client has disconnected.
    """

    def __init__(self, receive: Receive, max_upload: int, patience: float, reserve: Callable[[int], None]):
        self.channel, self.max_upload, self.patience, self._reserve = receive, max_upload, patience, reserve
        self.size, self.reserved, self.complete, self.left = 0, 0, False, False
        self.deadline = time.monotonic() + WHOLE_BODY_SECONDS

    async def receive(self) -> Message:
        """The next ASGI message. Raises `RequestError`: 413 if the body is too large, 408 if it is too slow."""
        wait = None if self.complete else min(self.patience, self.deadline - time.monotonic())
        try:
            async with asyncio.timeout(wait):
                message = await self.channel()
        except TimeoutError as error:
            fix, close = "send it again, over a quicker connection", {"Connection": "close"}
            raise RequestError(408, "the request did not arrive in time", fix=fix, headers=close) from error
        self.left = message["type"] == "http.disconnect"
        self.size += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        self.reserve(self.size)
        return message

    def reserve(self, size: int) -> None:
        """Reserve memory for `size` bytes. Raises `RequestError`: 413 if they are too many, 503 if all is used."""
        if size > self.max_upload:
            raise too_large(self.max_upload)
        if size > self.reserved:
            self._reserve(size - self.reserved)
            self.reserved = size

    async def discard(self) -> None:
        """Drop the rest of the body for a while: many clients send all of it before they read a response."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while (await self.channel()).get("more_body", False):
                    pass

    async def pause(self) -> None:
        """Wait for a while, or until the client leaves; not equally long for all, or they would come back together."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS * random.uniform(0.5, 1.5)):
                while (await self.channel())["type"] != "http.disconnect":
                    pass


def too_large(limit: int) -> RequestError:
    """The error (413) for a body of more than `limit` bytes."""
    fix = "send smaller images, or fewer at a time; the server's limit: --max-upload"
    return RequestError(413, f"more than {limit:,} bytes", fix=fix)


class SecurityMiddleware:
    """Check each request before the app gets it, limit its body, and add security headers to the response.

    All exceptions are handled here: a `RequestError` becomes its response; for any other exception, the response has an
    error number that is also in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Hosts,
        login: "Login | None",
        max_upload: int,
        patience: float,
        state: State,
        proxies: Collection[Network] = (),
        root_path: str = "",
    ):
        self.app, self.hosts, self.login, self.state = app, hosts, login, state
        self.proxies, self.root_path = proxies, root_path
        self.max_upload, self.patience = max_upload, patience
        self.bodies = Capacity(max(MAX_BODIES, 2 * max_upload))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":  # the lifespan; uvicorn accepts no WebSockets
            await self.app(scope, receive, send)
            return
        request = self._request(scope)
        with ExitStack() as reserved, suppress(LocalProtocolError):  # uvicorn has already refused a malformed body

            def reserve(size: int) -> None:
                reserved.enter_context(self.bodies.slot(size))

            body = Body(receive, self.max_upload, self.patience, reserve)
            if error := await self._serve(request, body, send):
                reserved.close()
                await self._refuse(error, request, body, send)

    async def _serve(self, request: Request, body: Body, send: Send) -> RequestError | None:
        """Call the app. Returns the error that the client still has to be sent, if any."""
        status = 0

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            if status != 500:  # Starlette and Gradio send a 500 for an exception, then raise it again.
                await self._send(message, send)

        try:
            await self._check(request)
            body.reserve(int(request.headers.get("content-length", 0)))
            await self.app(request.scope, body.receive, respond)
            error = RuntimeError("the app responded with 500") if status == 500 else None
        except LocalProtocolError:
            raise
        except Exception as caught:
            error = caught
        if error is None or body.left:
            return None
        if not isinstance(error, RequestError):
            error = internal_error(error)
        return error if status in (0, 500) else None

    async def _send(self, message: Message, send: Send) -> None:
        if message["type"] == "http.response.start":
            self.state.answers[message["status"]] += 1
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            if headers.get("content-type", "").startswith("text/event-stream"):
                headers["x-accel-buffering"] = "no"  # nginx would hold back events
            if not self.state.ready:  # During shutdown, the client's next request must use a new connection.
                headers["connection"] = "close"
        await send(message)

    async def _refuse(self, error: RequestError, request: Request, body: Body, send: Send) -> None:
        async def respond(message: Message) -> None:
            await self._send({**message, "more_body": True} if "body" in message else message, send)

        await error.response(request.scope, body.receive, respond)
        if not body.complete and "expect" not in request.headers:
            await body.discard()
        if error.status == 503:
            await body.pause()
        await send({"type": "http.response.body", "body": b""})

    def _request(self, scope: Scope) -> Request:
        """The request with the scheme and client as seen from outside of a proxy or tunnel, and HEAD as GET.

        All requests through a tunnel count as one client, as nothing reliable distinguishes them.
        """
        headers, client = MutableHeaders(raw=list(scope["headers"])), scope.get("client") or ("unknown", 0)
        named = self._is_proxy(client[0])
        for name in FORWARDED if not (named or client[0] in LOOPBACK) else () if named else FORWARDED[:1]:
            del headers[name]
        for address in reversed(headers.get("x-forwarded-for", "").split(",")):
            if address.strip() and not self._is_proxy(address.strip()):
                client = (address.strip(), 0)
                break
        tunnel = self.hosts.is_tunnel(headers.get("host", ""))
        https = headers.get("origin", "").startswith("https:") or headers.get("x-forwarded-proto") == "https"
        scheme = "https" if tunnel or https else scope.get("scheme", "http")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # uvicorn leaves out the body
        client = ("tunnel", 0) if tunnel else client
        return Request({**scope, "headers": headers.raw, "scheme": scheme, "client": client, "method": method})

    def _is_proxy(self, address: str) -> bool:
        return _is_address(address) and any(ipaddress.ip_address(address) in network for network in self.proxies)

    async def _check(self, request: Request) -> None:
        """Raise `RequestError` for a request that is refused by its headers alone."""
        headers = request.headers
        hosts, origin = [headers.get("host", ""), *headers.getlist("x-forwarded-host")], headers.get("origin")
        for host in hosts:
            if not self.hosts.allows(host):
                name = hostname(host) or "NAME"
                fix = f"use the address that the server printed, or start it with --allow-host {name[:100]}"
                raise RequestError(421, f"this server does not accept the host name {host[:100]!r}", fix=fix)
        self._set_path(request.scope, hosts[-1])
        site, place = headers.get("sec-fetch-site"), (origin or "").partition("://")[2].lower()
        # A browser says "same-origin" even where a proxy changed the host; an asset is no secret, and nothing works
        # without it: the page can say what is refused.
        known = place == hosts[-1].lower() or hostname(place) in self.hosts.origins or site == "same-origin"
        foreign = origin is not None and not known and not request.scope["path"].startswith(ASSETS)
        if foreign or (site == "cross-site" and headers.get("sec-fetch-mode") != "navigate"):
            fix = "open this server's own page"
            if place:
                name = hostname(place)[:100]
                fix += f"; if that is {place[:100]}, behind a proxy, start the server with --allow-host {name}"
            raise RequestError(403, "requests from another origin are refused", fix=fix)
        if self.login and request.scope["path"] not in WITHOUT_LOGIN:
            await self.login.check(request)

    def _set_path(self, scope: Scope, host: str) -> None:
        """Set host, prefix and path for the app; the proxy may or may not have removed the prefix from the path."""
        headers, path = MutableHeaders(scope=scope), scope["path"]
        prefix = self.root_path or headers.get("x-forwarded-prefix", "").rstrip("/")
        if not PREFIX.fullmatch(prefix):
            raise RequestError(400, f"X-Forwarded-Prefix {prefix[:100]!r} is no path", fix="set it like /cats")
        if path == prefix or path.startswith(f"{prefix}/"):
            path = path.removeprefix(prefix)
        # Relative addresses, which need not know the prefix.
        if not path or TRAILING_SLASH.fullmatch(path):
            place = f"{prefix}/".rsplit("/", 2)[1] + "/" if not path else "../" + path.rsplit("/", 2)[1]
            there = f"{prefix}/" if not path else path.rstrip("/")
            raise RequestError(308, "there is nothing here", fix=f"use {there}", headers={"Location": place})
        headers["host"], scope["path"] = host, path
        if prefix:
            headers["x-forwarded-prefix"] = prefix
