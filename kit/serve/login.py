"""Who may come in: a form and a cookie for the page, HTTP Basic for programs, and a brake on guessing.

login = Login("anna", password); app.include_router(login.routes())

The password is kept as a hash, sessions as random tokens in memory: a restart signs everybody out.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.serve.reply import Refusal

if TYPE_CHECKING:
    from fastapi import APIRouter

ATTEMPTS, WINDOW = 10, 60.0
SESSION_SECONDS = 12 * 3600
MOST_KEPT = 10_000
OWN = re.compile(rb"\w+=[\w-]{1,100}")
LONGEST_FORM = 10_000
FORM = Path(__file__).with_name("login.html")


class Throttle:
    """Counts failures for each client: more than `ATTEMPTS` within `WINDOW` seconds, and it has to wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """How many seconds this client has to wait; 0 where it need not."""
        times = self.failures.get(client, deque())
        while times and times[0] <= self.clock() - WINDOW:
            times.popleft()
        return WINDOW - (self.clock() - times[0]) if len(times) >= ATTEMPTS else 0.0

    def failed(self, client: str) -> None:
        """Remember a failure."""
        self.failures.setdefault(client, deque(maxlen=ATTEMPTS)).append(self.clock())
        self.failures.move_to_end(client)
        if len(self.failures) > MOST_KEPT:
            self.failures.popitem(last=False)


class Login:
    """One user with one password. cookie: the session cookie's name (cookies are shared by all ports of a host)."""

    def __init__(self, user: str, password: str, cookie: str = "kit_session", clock: Callable = time.monotonic):
        self.known, self.cookie, self.clock = _digest(user, password), cookie, clock
        self.throttle = Throttle(clock)
        self.sessions: OrderedDict[str, float] = OrderedDict()

    def check(self, scope: MutableMapping[str, Any]) -> None:
        """Raise `Refusal` unless the request carries a session or the password."""
        headers = dict(scope["headers"])
        if self._has_session(headers.get(b"cookie", b"")):
            return
        given = _basic(headers.get(b"authorization", b""))
        if given:
            self.attempt(*given, client_of(scope))
            return
        self._turn_away(scope["path"], scope["method"], headers)

    def attempt(self, user: str, password: str, client: str) -> None:
        """Raise `Refusal` where the password is wrong, or where this client has tried too often to be told."""
        if wait := self.throttle.wait(client):
            again = [("Retry-After", str(int(wait) + 1))]
            raise Refusal(429, "too many wrong passwords", fix=f"wait {wait:.0f} seconds", headers=again)
        if not hmac.compare_digest(_digest(user, password), self.known):
            self.throttle.failed(client)
            raise Refusal(401, "wrong user or password", fix="try again", headers=[("WWW-Authenticate", _REALM)])

    def open_session(self) -> str:
        """A new session's token."""
        token = secrets.token_urlsafe(32)
        self.sessions[token] = self.clock() + SESSION_SECONDS
        if len(self.sessions) > MOST_KEPT:
            self.sessions.popitem(last=False)
        return token

    def _has_session(self, header: bytes) -> bool:
        return self.sessions.get(self._token(header), 0.0) > self.clock()

    def _token(self, header: bytes) -> str:
        return self.own_cookie(header).partition(b"=")[2].decode()

    def own_cookie(self, header: bytes) -> bytes:
        """This login's cookie out of a Cookie header, nothing where there is none. No other is looked at: Python's way
        to read a quoted one takes seconds for 60 kB of it."""
        for pair in header.split(b";"):
            if OWN.fullmatch(pair := pair.strip()) and pair.startswith(self.cookie.encode() + b"="):
                return pair
        return b""

    def _turn_away(self, path: str, method: str, headers: dict[bytes, bytes]) -> None:
        if method == "GET" and path == "/" and b"text/html" in headers.get(b"accept", b""):
            raise Refusal(303, "sign in first", fix="open /login", headers=[("Location", "/login")])
        # Only programs are asked by name: a browser would open its own window for the page's background requests.
        ask = [("WWW-Authenticate", _REALM)] if path.startswith("/v1/") else []
        raise Refusal(401, "sign in first", fix="open /login, or send user and password (HTTP Basic)", headers=ask)

    def routes(self) -> "APIRouter":
        """/login and /logout."""
        from fastapi import APIRouter, Request
        from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

        router = APIRouter(include_in_schema=False)

        @router.get("/login")
        def form() -> HTMLResponse:
            return HTMLResponse(_form())

        @router.post("/login")
        async def enter(request: Request):
            if len(await request.body()) > LONGEST_FORM:
                raise Refusal(413, "no name or password is that long", fix="send username and password")
            given = await request.form(max_files=0, max_fields=5)
            browser = "text/html" in request.headers.get("accept", "")
            try:
                self.attempt(str(given.get("username", "")), str(given.get("password", "")), client_of(request.scope))
            except Refusal as refusal:
                if not browser:
                    raise
                return HTMLResponse(_form(f"{refusal.problem}: {refusal.fix}"), refusal.status)
            answer = RedirectResponse("/", 303) if browser else JSONResponse({"success": True})
            # A browser sends a secure cookie by https only: over plain http nobody could stay signed in with one.
            flags = {"httponly": True, "samesite": "strict", "secure": request.url.scheme == "https"}
            answer.set_cookie(self.cookie, self.open_session(), SESSION_SECONDS, **flags)
            return answer

        @router.post("/logout")
        def leave(request: Request):
            self.sessions.pop(self._token(request.headers.get("cookie", "").encode("latin-1")), None)
            return RedirectResponse("/login", 303)

        return router


_REALM = 'Basic realm="kit", charset="UTF-8"'


def client_of(scope: MutableMapping[str, Any]) -> str:
    """The address that a request came from."""
    return (scope.get("client") or ("unknown",))[0]


def _digest(user: str, password: str) -> bytes:
    return hashlib.sha256(f"{user}\0{password}".encode()).digest()


def _basic(header: bytes) -> tuple[str, str] | None:
    kind, _, text = header.partition(b" ")
    if kind.lower() != b"basic":
        return None
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def _form(problem: str = "") -> str:
    said = f'<p role="alert">{problem}</p>' if problem else ""
    return FORM.read_text(encoding="utf-8").replace("<!--problem-->", said)
