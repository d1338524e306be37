"""What the page may be sent: files with names, and events whose images are such files and nothing else on the disk.

app.include_router(routes(blocks, cache)); app = Events(app, blocks, cache)

Gradio takes a path or an address where a file is expected, in many spellings; here one spelling is let through.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from kit.serve.reply import FILES, App, Receive, Refusal, Scope, Send

JOIN, RUN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/upload"
MOST_FILES = 1000
LONGEST_NAME = 120
ROOM = 1_000_000_000
HOW = "use the page, or gradio_client with handle_file"


def routes(blocks: Any, cache: Path) -> APIRouter:
    """The page's upload, in Gradio's place: each file under its hash, and one without a name is refused."""
    router = APIRouter(include_in_schema=False)

    @router.post(UPLOAD)
    async def upload(request: Request) -> list[str]:
        try:
            form = await request.form(max_files=MOST_FILES, max_fields=MOST_FILES)
        except (MultiPartException, HTTPException) as error:
            raise Refusal(400, "the form cannot be read", fix=HOW) from error
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

    return router


async def store(file: UploadFile, cache: Path) -> str:
    """Write an uploaded file to cache/SHA-256/name and return that path. The name loses what a path could use.

    Raises `Refusal` where the disk is nearly full."""
    if shutil.disk_usage(cache).free < ROOM:
        raise Refusal(507, "this server's disk is nearly full", fix="try again in an hour, when uploads are deleted")
    data = await file.read()
    name = "".join(sign if sign.isalnum() or sign in "._- ()" else "_" for sign in Path(file.filename).name)
    stem, dot, suffix = name.rpartition(".")
    folder = cache / hashlib.sha256(data).hexdigest()
    folder.mkdir(exist_ok=True)
    path = folder / f"{(stem or 'file')[:LONGEST_NAME]}{dot}{suffix[:10]}"
    path.write_bytes(data)
    return str(path)


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

    def __init__(self, app: App, blocks: Any, cache: Path):
        self.app, self.blocks, self.cache = app, blocks, cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI hands it over. Raises `Refusal`."""
        path = scope.get("path", "")
        if path.startswith(FILES) and not inside(self.cache, unquote(path.removeprefix(FILES))):
            raise Refusal(404, "there is no such file", fix="upload it first")
        if path not in (JOIN, RUN) or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await read(receive)
        event = self.check(body, queued=path == JOIN)
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type")]
        text = json.dumps(event).encode()
        headers += [(b"content-length", str(len(text)).encode()), (b"content-type", b"application/json")]
        await self.app({**scope, "headers": headers}, replay(text, receive), send)

    def check(self, body: bytes, queued: bool = True) -> dict[str, Any]:
        """The event in `body`, its files stripped to their paths. Raises `Refusal` that says what is wrong with it.

        queued: whether it would wait in the queue; what has to wait is not run past it.
        """
        try:
            event = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "the body is not JSON", fix=HOW) from error
        if not isinstance(event, dict) or not isinstance(event.get("session_hash"), str):
            raise Refusal(422, "the body is no event with a session_hash", fix=HOW)
        function = self.blocks.fns.get(event.get("fn_index")) if isinstance(event.get("fn_index"), int) else None
        if function is None or function.queue is not queued:
            raise Refusal(404, "there is no such function", fix=HOW)
        data = event.get("data")
        if not isinstance(data, list) or len(data) != len(function.inputs):
            raise Refusal(422, f"data is not a list of {len(function.inputs)} values", fix=HOW)
        for component, value in zip(function.inputs, data, strict=True):
            self._check_value(component, value)
        return event

    def _check_value(self, component: Any, value: Any) -> None:
        files = list(file_values(value))
        takes_files = component.get_block_name() in ("image", "file")
        given = value if isinstance(value, list) else [value]
        if takes_files and value is not None and not all(isinstance(one, dict) and one in files for one in given):
            raise Refusal(422, "a value is no uploaded file", fix=HOW)
        for file in files:
            path, url = file.get("path"), file.pop("url", None)
            if not takes_files or not isinstance(path, str) or not inside(self.cache, path):
                raise Refusal(422, "a file was not uploaded here", fix=HOW)
            if url and unquote(str(url)).partition(FILES)[2] != path:
                raise Refusal(422, "a file's address is not this server's", fix=HOW)


def file_values(value: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a JSON value that a component could take for a file."""
    if isinstance(value, dict):
        if {"path", "url"} & value.keys():
            yield value
        for inner in value.values():
            yield from file_values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from file_values(inner)


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
