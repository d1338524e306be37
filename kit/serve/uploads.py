"""What the page may be sent: files with names, and events whose images are such files and nothing else on the disk.

app.include_router(routes(blocks, cache)); app = Events(app, blocks, cache, gate)

Gradio takes a path or an address where a file is expected, in many spellings; here one spelling is let through.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from kit.serve.gate import Gate
from kit.serve.reply import FILES, App, Receive, Refusal, Scope, Send

JOIN, RUN, CANCEL = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"
UPLOAD, STREAM = "/gradio_api/upload", "/gradio_api/queue/data"
MOST_FILES = 1000
LONGEST_NAME, LONGEST_SUFFIX = 120, 11
ROOM = 1_000_000_000
# Gradio keeps the session's name for as long as it likes.
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
DEEPEST, SESSIONS = 20, 300
FILE = {"_type": "gradio.FileData"}
HOW = "use the page, or gradio_client with handle_file"


def routes(blocks: Any, cache: Path) -> APIRouter:
    """The page's upload, in Gradio's place: each file under its hash, and one without a name is refused."""
    router = APIRouter(include_in_schema=False)

    @router.post(UPLOAD)
    async def upload(request: Request) -> list[str]:
        try:
            form = await request.form(max_files=MOST_FILES, max_fields=MOST_FILES)
        except (MultiPartException, HTTPException) as error:
            why = getattr(error, "message", "") or getattr(error, "detail", "")
            raise Refusal(400, f"the form cannot be read ({why})", fix=HOW) from error
        files = form.getlist("files")
        if not files or not all(isinstance(file, UploadFile) and file.filename for file in files):
            raise Refusal(422, "no files, or one without a name", fix=HOW)
        stored = [await store(file, cache) for file in files]
        blocks.upload_file_set.update(stored)
        return stored

    @router.get("/gradio_api/upload_progress")
    def progress() -> Response:
        """The page asks while it uploads; the browser itself knows when that is done."""
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    @router.post("/gradio_api/reset")
    def reset() -> dict[str, bool]:
        """What Gradio answers too, which does nothing more."""
        return {"success": True}

    return router


async def store(file: UploadFile, cache: Path) -> str:
    """Write an uploaded file to cache/SHA-256/name and return that path. The name loses what a path could use.

    Raises `Refusal` where the disk is nearly full."""
    if shutil.disk_usage(cache).free < ROOM:
        raise Refusal(507, "this server's disk is nearly full", fix="try again in an hour, when uploads are deleted")
    data = await file.read()
    folder = cache / hashlib.sha256(data).hexdigest()
    folder.mkdir(exist_ok=True)
    path = folder / safe_name(file.filename)
    path.write_bytes(data)
    return str(path)


def safe_name(name: str) -> str:
    """A name that leads nowhere and that every disk takes, with the suffix that it had."""
    path = Path("".join(sign if sign.isalnum() or sign in "._- ()" else "_" for sign in Path(name).name))
    stem = path.stem.encode()[:LONGEST_NAME].decode(errors="ignore").strip(". ") or "file"
    return stem + path.suffix.encode()[:LONGEST_SUFFIX].decode(errors="ignore")


def inside(cache: Path, path: str) -> bool:
    """Whether `path` is, as it is spelled, a file of the upload cache."""
    place = Path(path)
    try:
        is_file = path == str(place) and ".." not in place.parts and place.is_file()
        return is_file and place.resolve().is_relative_to(cache)
    except (OSError, ValueError):
        return False


class Events:
    """An ASGI app before the page's: it refuses events that the page itself would not send, and files that the page
    was not sent."""

    def __init__(self, app: App, blocks: Any, cache: Path, gate: Gate):
        self.app, self.blocks, self.cache, self.gate = app, blocks, cache, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI hands it over. Raises `Refusal`."""
        path = scope.get("path", "")
        if path.startswith(FILES) and not inside(self.cache, unquote(path.removeprefix(FILES))):
            raise Refusal(404, "there is no such file", fix="upload it first")
        if path == STREAM and not self.knows_session(scope):
            await _say_unknown(send)
        elif scope.get("method") == "POST" and path in (JOIN, RUN, CANCEL):
            body = await read(receive)
            event = check_cancel(body) if path == CANCEL else self.check(body, queued=path == JOIN)
            await self._pass_on(event, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _pass_on(self, event: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> None:
        """What was checked, and nothing else. An event that joins needs a place."""
        text = json.dumps(event).encode()
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type")]
        headers += [(b"content-length", str(len(text)).encode()), (b"content-type", b"application/json")]
        with ExitStack() as place:
            if scope["path"] == JOIN:
                place.enter_context(self.gate.place())
                forget_sessions(self.blocks._queue)

            async def answer(message: Any) -> None:
                # From now on Gradio counts it.
                place.close()
                await send(message)

            await self.app({**scope, "headers": headers}, replay(text, receive), answer)

    def knows_session(self, scope: Scope) -> bool:
        """Whether somebody joined by the name that this stream asks for. Gradio would fail, half-way in its answer."""
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])
        return asked[-1] in self.blocks._queue.pending_messages_per_session

    def check(self, body: bytes, queued: bool = True) -> dict[str, Any]:
        """The event in `body`: its function, data and session, and nothing else. Its files are stripped to their paths.
        Raises `Refusal` that says what is wrong with it.

        queued: whether it would wait in the queue; what has to wait is not run past it.
        """
        event, session = _with_session(body)
        function = self.blocks.fns.get(event.get("fn_index")) if isinstance(event.get("fn_index"), int) else None
        if function is None or function.fn is None or function.queue is not queued:
            raise Refusal(404, "there is no such function", fix=HOW)
        data = event.get("data")
        if not isinstance(data, list) or len(data) != len(function.inputs):
            raise Refusal(422, f"data is not a list of {len(function.inputs)} values", fix=HOW)
        for component, value in zip(function.inputs, data, strict=True):
            self._check_value(component, value)
        return {"fn_index": event["fn_index"], "data": data, "session_hash": session}

    def _check_value(self, component: Any, value: Any) -> None:
        kind = component.get_block_name()
        if kind == "dataset" and not (type(value) is int and 0 <= value < len(component.raw_samples)):
            raise Refusal(422, "there is no such example", fix=HOW)
        if not _fits(kind, value):
            raise Refusal(422, f"a value is no uploaded file, or more than {MOST_FILES}", fix=HOW)
        for file in list(file_values(value)):
            path, url = file.get("path"), file.get("url")
            if kind not in ("image", "file") or not isinstance(path, str) or not inside(self.cache, path):
                raise Refusal(422, "a file was not uploaded here", fix=HOW)
            if url and unquote(str(url)).partition(FILES)[2] != path:
                raise Refusal(422, "a file's address is not this server's", fix=HOW)
            file.clear()
            file |= {"path": path, "meta": FILE}


def events_inside(blocks: Any) -> int:
    """How many events of a page wait or run."""
    queues = blocks._queue.event_queue_per_concurrency_id.values()
    return sum(len(one.queue) + one.current_concurrency for one in queues)


def remember_few(blocks: Any) -> None:
    """Keep what nobody fetched, and what Gradio knows of a visitor, for the last `SESSIONS` visitors: it would do so
    for thousands of them, with all pictures. blocks: a page that is mounted."""
    blocks.state_holder.capacity = SESSIONS
    blocks._queue.pending_messages_per_session.max_size = SESSIONS


def forget_sessions(queue: Any) -> None:
    """Forget the names of visitors whose messages are gone; Gradio keeps them all."""
    names = queue.pending_event_ids_session
    if len(names) > 2 * SESSIONS:
        for name in names.keys() - queue.pending_messages_per_session.keys():
            del names[name]


def check_cancel(body: bytes) -> dict[str, Any]:
    """What says which event is no longer wanted. Raises `Refusal`."""
    given, session = _with_session(body)
    event, function = given.get("event_id"), given.get("fn_index")
    if not isinstance(event, str) or not SESSION.fullmatch(event) or type(function) is not int:
        raise Refusal(422, "no event_id, or no fn_index", fix=HOW)
    return {"event_id": event, "fn_index": function, "session_hash": session}


def _with_session(body: bytes) -> tuple[dict[str, Any], str]:
    """A JSON object, and the session that it names."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the body is not JSON", fix=HOW) from error
    session = given.get("session_hash") if isinstance(given, dict) else None
    if not isinstance(session, str) or not SESSION.fullmatch(session):
        raise Refusal(422, "the body is no event with a session_hash", fix=HOW)
    return given, session


async def _say_unknown(send: Send) -> None:
    """Tell the page that its session is over, as Gradio does."""
    said = {"msg": "unexpected_error", "message": "unknown session", "session_not_found": True, "success": False}
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"data: {json.dumps(said)}\n\n".encode()})


def file_values(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every dict in a JSON value that a component could take for a file."""
    if depth > DEEPEST:
        raise Refusal(422, "a value is nested too deeply", fix=HOW)
    if isinstance(value, dict):
        if _is_file(value):
            yield value
        for inner in value.values():
            yield from file_values(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from file_values(inner, depth + 1)


def _fits(kind: str, value: Any) -> bool:
    """Whether a component that takes files could take this value: one file for an image, some for files, or none."""
    if kind == "file" and isinstance(value, list):
        return len(value) <= MOST_FILES and all(map(_is_file, value))
    return kind not in ("image", "file") or value is None or (kind == "image" and _is_file(value))


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and not value.keys().isdisjoint(("path", "url"))


async def read(receive: Receive) -> bytes:
    """A body that the guard counts."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the request was cut off", fix="send it again")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` once more, and then waits for the client to leave."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return messages.pop() if messages else await receive()

    return again
