"""The page of `kit clean` and `kit label`: one card an image, decisions by keyboard, on this machine only.

with listen(7861) as listener: serve(session, listener, print)

A page of its own and not Gradio's: a key must be answered in a few milliseconds, and Gradio sends each event through
its queue. It is served on the loopback interface behind the same middleware as `kit serve`.
"""

import io
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Body, FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.requests import Request

from kit.clean.decisions import Conflict, Decision
from kit.clean.effect import effect_lines
from kit.clean.findings import KINDS
from kit.clean.session import Session
from kit.console import say
from kit.data.images import open_image, without_warnings
from kit.errors import KitError
from kit.features.embedding import positions
from kit.serve.http_server import Server
from kit.serve.middleware import LOOPBACK, Hosts, SecurityMiddleware
from kit.serve.responses import State
from kit.serve.server import bind, log_to_stderr

HERE = Path(__file__).parent
FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
HOST = "127.0.0.1"
SMALLEST, LARGEST = 64, 1024
MAX_BODY, PATIENCE = 100_000, 10.0
SAVE_SECONDS = 0.3
AUDIT, DECIDED = "audit", "decided"
ALL_KINDS = KINDS | {AUDIT: "drawn at random, to estimate the share of wrong labels", DECIDED: "decided before"}


def listen(port: int) -> socket.socket:
    """A socket on the loopback interface, to take the port before the images are read. Raises `KitError`."""
    return bind(HOST, port)


def serve(session: Session, listener: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM. listener: of `listen`. announce: called with its address."""
    log_to_stderr()
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    app = application(session)
    state = State()
    guarded = SecurityMiddleware(
        app, hosts=Hosts(set(LOOPBACK)), login=None, max_upload=MAX_BODY, patience=PATIENCE, state=state
    )
    Server(guarded, state, lambda: announce(address)).run(sockets=[listener])
    session.save()


def application(session: Session) -> FastAPI:
    """The page and its routes, without the middleware."""
    app = FastAPI(title="kit clean", docs_url=None, openapi_url=None, redoc_url=None)
    app.exception_handler(KitError)(_refused)
    app.include_router(Routes(session).router)
    for route, name in FILES.items():
        app.get(route)(lambda name=name: FileResponse(HERE / name, headers={"Cache-Control": "no-cache"}))
    return app


async def _refused(_: Request, error: KitError) -> JSONResponse:
    status = 409 if isinstance(error, Conflict) else 422
    return JSONResponse({"error": error.problem, "fix": error.fix}, status)


class Routes:
    """What the page asks for. Rows of the session's table stand for images; no path comes from the browser.

    Decisions say the session's version: a page of an earlier start, whose rows may be other images, is refused.
    """

    def __init__(self, session: Session):
        self.session, self.router = session, APIRouter()
        self._timer: threading.Timer | None = None
        self._map: list | None = None
        threading.Thread(target=self._draw_map, daemon=True).start()
        for route in ("state", "card/{row}", "image/{row}", "like/{row}", "map", "effect"):
            self.router.get(f"/clean/{route}")(getattr(self, route.partition("/")[0]))
        for route in ("decide", "undo", "again"):
            self.router.post(f"/clean/{route}")(getattr(self, route))

    def _draw_map(self) -> None:
        self._map = [[round(float(value), 4) for value in xy] for xy in positions(self.session.features)]

    def state(self) -> dict[str, Any]:
        """All that the page needs to begin: classes, kinds, the order of the cards, and the progress."""
        session = self.session
        kinds: dict[int, list[str]] = {}
        for one in session.findings:
            kinds.setdefault(one.row, []).append(one.kind)
        for row in session.audit:
            kinds.setdefault(row, []).append(AUDIT)
        for row in session.decided_rows():
            kinds.setdefault(row, [DECIDED])
        cards = [
            {"row": row, "kinds": list(dict.fromkeys(own)), "label": session.label_of(row), "done": self._decided(row)}
            for row, own in kinds.items()
        ]
        return {
            "version": session.version,
            "folder": session.folder.name,
            "mode": session.mode,
            "task": session.task,
            "classes": session.classes,
            "kinds": ALL_KINDS | session.kinds,
            "images": len(session.table),
            "cards": cards,
            "broken": [one | {"path": Path(one["path"]).name} for one in session.broken],
            "csv": str(session.journal.csv),
            "seconds": round(session.seconds, 1),
            **self._progress(),
        }

    def _decided(self, row: int) -> bool:
        return self.session.journal.current(self.session.table["name"][row]) is not None

    def _progress(self) -> dict[str, Any]:
        return {"decided": len(self.session.decided_rows()), "says": self.session.says()}

    def card(self, row: int) -> dict[str, Any]:
        """Everything about one image."""
        session = self.session
        self._check(row)
        facts = session.table.iloc[row]
        now = session.journal.current(facts["name"])
        findings = [
            {
                "kind": one.kind,
                "text": (ALL_KINDS | session.kinds)[one.kind],
                "reason": one.reason,
                "suggestion": one.suggestion,
                "similar": [self._short(other) for other in one.similar],
            }
            for one in session.findings
            if one.row == row
        ]
        return {
            **self._short(row),
            "old_label": facts["label"],
            "split": facts["split"],
            "size": [int(facts["width"]), int(facts["height"])],
            "findings": findings,
            "action": now.action if now else None,
            "seen": session.journal.count(facts["name"]),
        }

    def _short(self, row: int) -> dict[str, Any]:
        return {"row": row, "name": self.session.table["name"][row], "label": self.session.label_of(row)}

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.session.table):
            raise KitError(f"there is no image {row}", fix="reload the page")

    def image(self, row: int, side: int = 640) -> Response:
        """The image as a JPEG, at most `side` pixels a side, without metadata. Browsers may keep it: the page adds the
        session's version to the address."""
        self._check(row)
        side = min(max(side, SMALLEST), LARGEST)
        with without_warnings():
            picture = open_image(self.session.table["path"][row], at_least=side)
        picture.thumbnail((side, side))
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=88)
        return Response(stream.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def like(self, row: int) -> list[dict[str, Any]]:
        """The images most like one."""
        self._check(row)
        return [self._short(other) for other in self.session.like(row)]

    def map(self) -> JSONResponse:
        """The position of each image, 0 to 1, and the number of its class; 202 until they are computed."""
        if self._map is None:
            return JSONResponse({"error": "the map is being drawn", "fix": "wait a moment"}, 202)
        return JSONResponse({"xy": self._map, "labels": self.session.labels()})

    def effect(self) -> dict[str, Any]:
        """What the decisions so far change, in words."""
        return {"lines": effect_lines(self.session)}

    def decide(
        self,
        version: str = Body(),
        row: int = Body(),
        action: str = Body(),
        label: str = Body(""),
        reason: str = Body(""),
        seen: int = Body(),
    ) -> dict[str, Any]:
        """Store a decision; 409 where another window decided about the image in the meantime."""
        self._check_version(version)
        self._check(row)
        name = self.session.table["name"][row]
        count = self.session.decide(Decision(name, action, label, reason[:1000]), seen)
        self._save_soon()
        return {"seen": count, "label": self.session.label_of(row), "done": self._decided(row), **self._progress()}

    def _check_version(self, version: str) -> None:
        if version != self.session.version:
            raise Conflict("the server was started again with other images", fix="decide again")

    def undo(self, version: str = Body(embed=True)) -> dict[str, Any]:
        """Take the last decision back; returns the row of its image, or none."""
        self._check_version(version)
        row = self.session.undo()
        self._save_soon()
        return {"row": row, **self._progress()}

    def again(self) -> dict[str, Any]:
        """Look for findings again, with the labels as they are now."""
        self.session.look()
        return self.state()

    def _save_soon(self) -> None:
        """Write the CSV once a burst of decisions is over; the journal has them already."""
        if self._timer:
            self._timer.cancel()
        self._timer = threading.Timer(SAVE_SECONDS, self._save)
        self._timer.daemon = True
        self._timer.start()

    def _save(self) -> None:
        try:
            self.session.save()
        except KitError as error:
            say(f"error: {error.problem}; {error.fix}")
