"""Authentication: a form and a session cookie for the page, HTTP Basic for programs, and a limit on guesses.

login = Login("anna", password); app.include_router(login.routes())

The password is kept as a hash and sessions as random tokens in memory; a restart ends all sessions.
"""

import asyncio
import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.templating import Jinja2Templates

from kit.serve.responses import RequestError

ATTEMPTS, WINDOW, DELAY, MAX_WAIT = 10, 60.0, 0.5, 10.0
SESSION_SECONDS = 12 * 3600
MAX_FORM_BYTES = 10_000
REALM = 'Basic realm="kit", charset="UTF-8"'
TEMPLATES = Jinja2Templates(Path(__file__).parent)


class Login:
    """One user with one password.

    cookie: the name of the session cookie. It should differ from port to port, because browsers send the cookies of a
    host to all its ports. clock: a function that returns seconds.
    """

    def __init__(self, user: str, password: str, cookie: str = "kit_session", clock: Callable = time.monotonic):
        self.expected, self.cookie, self.clock = _digest(user, password), cookie, clock
        self.sessions: dict[str, float] = {}
        self.failures: dict[str, list[tuple[float, bytes]]] = {}
        self.turns: dict[str, float] = {}

    async def check(self, request: Request) -> None:
        """Raise `RequestError` unless the request has a valid session cookie or HTTP Basic credentials."""
        if self.sessions.get(self._token(request), 0.0) > self.clock():
            return
        kind, _, credentials = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            await self.attempt(*_decode_basic(credentials), request.client.host)
            return
        path = request.scope["path"]
        if request.method == "GET" and path == "/" and _is_browser(request):
            raise RequestError(303, "sign in first", fix="open /login", headers={"Location": "login"})
        # For this header, browsers open a login window, even for background requests of the page.
        headers = {"WWW-Authenticate": REALM} if path.startswith("/v1/") else None
        raise RequestError(
            401, "sign in first", fix="open /login, or send user and password (HTTP Basic)", headers=headers
        )

    async def attempt(self, user: str, password: str, client: str) -> None:
        """Return for the right password. Raises `RequestError`: 401 for a wrong one, 429 for too many.

        client: the IP address. After `ATTEMPTS` wrong passwords of a client within `WINDOW` seconds, its passwords are
        tried one every `DELAY` seconds: guessing becomes slow, while the right password still works, only later, for
        everyone behind the same proxy. A repeated password, and more than can be tried in `MAX_WAIT` seconds, are not
        tried.
        """
        now, digest = self.clock(), _digest(user, password)
        recent = [(then, known) for then, known in self.failures.get(client, []) if then > now - WINDOW]
        limited = len(recent) >= ATTEMPTS
        if limited:
            turn = max(self.turns.get(client, now), now) + DELAY
            if turn > now + MAX_WAIT or any(known == digest for _, known in recent):
                raise _too_many(turn - now)
            self.turns[client] = turn
            await asyncio.sleep(turn - now)
        if not secrets.compare_digest(digest, self.expected):
            self.failures = {name: tries for name, tries in self.failures.items() if tries[-1][0] > now - WINDOW}
            self.turns = {name: turn for name, turn in self.turns.items() if turn > now}
            self.failures.setdefault(client, []).append((now, digest))
            if limited:
                raise _too_many(DELAY)
            raise RequestError(401, "wrong user or password", fix="try again", headers={"WWW-Authenticate": REALM})

    def open_session(self) -> str:
        """Start a session and return its token; delete expired ones."""
        now, token = self.clock(), secrets.token_urlsafe(32)
        self.sessions = {known: end for known, end in self.sessions.items() if end > now}
        self.sessions[token] = now + SESSION_SECONDS
        return token

    def _token(self, request: Request) -> str:
        """The session's token from the Cookie header.

        Not by `request.cookies`: before Python 3.12.6, unquoting takes seconds for 60 kB of backslashes
        (https://github.com/python/cpython/issues/123067).
        """
        found = re.search(rf"(?:^|; ?){self.cookie}=([\w-]+)(?:;|$)", request.headers.get("cookie", ""))
        return found[1] if found else ""

    def routes(self) -> APIRouter:
        """The routes /login and /logout."""
        router = APIRouter(include_in_schema=False)

        @router.get("/login")
        def form(request: Request) -> Response:
            return TEMPLATES.TemplateResponse(request, "login.html")

        @router.post("/login")
        async def enter(request: Request) -> Response:
            if len(await request.body()) > MAX_FORM_BYTES:
                raise RequestError(413, "no name or password is that long", fix="send username and password")
            given = await request.form(max_files=0, max_fields=5)
            try:
                await self.attempt(str(given.get("username", "")), str(given.get("password", "")), request.client.host)
            except RequestError as error:
                if not _is_browser(request):
                    raise
                context = {"problem": f"{error.problem}: {error.fix}"}
                return TEMPLATES.TemplateResponse(request, "login.html", context, error.status)
            response = RedirectResponse("./", 303) if _is_browser(request) else JSONResponse({"success": True})
            # Browsers do not send a secure cookie over plain http, as used on a local network.
            flags = {"httponly": True, "samesite": "strict", "secure": request.url.scheme == "https"}
            # Without a path, the cookie is for the folder of this address as the browser sees it, behind any proxy.
            response.set_cookie(self.cookie, self.open_session(), SESSION_SECONDS, path=None, **flags)
            return response

        @router.post("/logout")
        def leave(request: Request) -> Response:
            self.sessions.pop(self._token(request), None)
            return RedirectResponse("login", 303)

        return router


def _too_many(seconds: float) -> RequestError:
    again = {"Retry-After": str(int(seconds) + 1)}
    return RequestError(429, "too many wrong passwords", fix=f"wait {int(seconds) + 1} seconds", headers=again)


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _digest(user: str, password: str) -> bytes:
    return hashlib.sha256(f"{user}\0{password}".encode()).digest()


def _decode_basic(credentials: str) -> tuple[str, str]:
    """User and password. FastAPI's HTTPBasic decodes ASCII only."""
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return user, password
