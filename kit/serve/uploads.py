"""Upload and download of the page's files, each of which is stored under its hash in one folder.

app.include_router(routes(cache, stored=blocks.upload_file_set.update))

These routes replace Gradio's, which accept files without a name and send uploaded HTML back as a page of this server.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from mimetypes import guess_type
from pathlib import Path
from unicodedata import category

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from kit.serve.responses import RequestError

UPLOAD, FILES = "/gradio_api/upload", "/gradio_api/file="
MAX_FILES = 1000
MAX_STEM_BYTES, MAX_SUFFIX_BYTES = 120, 11
MIN_FREE_BYTES = 1_000_000_000
SHOWN = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
USAGE = "use the page, or gradio_client with handle_file"


def routes(cache: Path, stored: Callable[[Iterable[str]], None]) -> APIRouter:
    """The routes. stored: called with the paths of new files; Gradio deletes those some time later."""
    router = APIRouter(include_in_schema=False)

    @router.post(UPLOAD)
    async def upload(request: Request) -> list[str]:
        files = (await read_form(request, MAX_FILES, USAGE)).getlist("files")
        if not files or not all(isinstance(file, UploadFile) and file.filename for file in files):
            raise RequestError(422, "no files, or one without a name", fix=USAGE)
        paths = [await store(file, cache) for file in files]
        stored(paths)
        return paths

    @router.get("/gradio_api/upload_progress")
    def progress() -> Response:
        """Gradio's page asks for the progress during an upload; a page without progress bar needs none."""
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    @router.api_route(FILES + "{path:path}", methods=["GET", "HEAD"])
    def download(path: str) -> Response:
        """Send a file. Only pictures are displayed: a script in any other file could act as this server's page."""
        if not inside(cache, path):
            raise RequestError(404, "there is no such file", fix="upload it first")
        kind, headers = guess_type(path)[0], {"Cache-Control": "private, no-store"}
        if kind in SHOWN:
            return FileResponse(path, media_type=kind, headers=headers)
        return FileResponse(path, media_type="application/octet-stream", filename=Path(path).name, headers=headers)

    return router


async def read_form(request: Request, most: int, fix: str) -> FormData:
    """Parse a form of at most `most` files and as many fields. Raises `RequestError` (400) with `fix`."""
    try:
        return await request.form(max_files=most, max_fields=most)
    except HTTPException as error:
        raise RequestError(400, f"the form cannot be read ({error.detail})", fix=fix) from error


async def store(file: UploadFile, cache: Path) -> str:
    """Write an uploaded file to cache/SHA-256/name and return that path. Raises `RequestError` if the disk is full."""
    if shutil.disk_usage(cache).free < MIN_FREE_BYTES:
        raise RequestError(
            507, "this server's disk is nearly full", fix="try again in an hour, when uploads are deleted"
        )
    data = await file.read()
    folder = cache / hashlib.sha256(data).hexdigest()
    folder.mkdir(exist_ok=True)
    path = folder / safe_name(file.filename)
    path.write_bytes(data)
    return str(path)


def safe_name(name: str) -> str:
    """A file name without separators and special characters, short enough for any disk, with its suffix kept."""
    path = Path("".join(sign if category(sign)[0] in "LMN" or sign in "._- ()" else "_" for sign in Path(name).name))
    stem = path.stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore").strip(". ") or "file"
    return stem + path.suffix.encode()[:MAX_SUFFIX_BYTES].decode(errors="ignore")


def inside(cache: Path, path: str) -> bool:
    """Whether `path`, in exactly this spelling, is a file of the upload cache."""
    place = Path(path)
    try:
        is_file = path == str(place) and ".." not in place.parts and place.is_file()
        return is_file and place.resolve().is_relative_to(cache)
    except (OSError, ValueError):
        return False
