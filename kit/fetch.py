"""Fetching files: checked against a known digest, resumed after a cut, and by hand where there is no network.

download([Source("https://host/weights.pth", Digest("sha256", "f37072fd"))], Path("weights.pth"), "the weights")

A file arrives under its name only when it is whole and its digest fits. Until then it is `NAME.partial`, with
`NAME.partial.json` beside it, which says of which address and which version of the file it is a part.
"""

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import socket
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, build_opener

from kit.console import byte_bar
from kit.errors import FetchError, OutputError
from kit.files import write_json
from kit.offline import look, offline

ATTEMPTS, TIMEOUT_SECONDS = 5, 15
BLOCK_BYTES = 1 << 18
DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Digest:
    """What a file must hash to; `ValueError` where that cannot be checked.

    algorithm: "sha256" or "md5"; hexadecimal: the digest or its beginning, 8 digits at least, as in
    `resnet18-f37072fd.pth`; first_bytes: hash only so many bytes from the start; size: of the whole file, in bytes.
    """

    algorithm: str
    hexadecimal: str
    first_bytes: int | None = None
    size: int | None = None

    def __post_init__(self):
        if self.algorithm not in DIGITS:
            raise ValueError(f'algorithm="{self.algorithm}"; expected one of {", ".join(DIGITS)}')
        most = DIGITS[self.algorithm]
        if not re.fullmatch(rf"[0-9a-fA-F]{{8,{most}}}", self.hexadecimal):
            raise ValueError(f'hexadecimal="{self.hexadecimal}"; expected 8 to {most} hexadecimal digits')

    def of(self, path: Path) -> str:
        """The digest that the file at `path` has, in as many digits as are expected."""
        with path.open("rb") as file:
            if self.first_bytes is None:
                hasher = hashlib.file_digest(file, self.algorithm)
            else:
                hasher = hashlib.new(self.algorithm, file.read(self.first_bytes))
        return hasher.hexdigest()[: len(self.hexadecimal)]

    def fits(self, path: Path) -> bool:
        """Whether the file at `path` is the expected one."""
        return self.size in (None, path.stat().st_size) and self.of(path) == self.hexadecimal.lower()


@dataclass(frozen=True)
class Source:
    """One place that has a file: its http or https address, and what the file must hash to."""

    url: str
    digest: Digest

    def __post_init__(self):
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise FetchError(f'"{self.url}" cannot be fetched', fix="give an address that begins with https://")

    @property
    def host(self) -> str:
        """Host and port, without a password."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The file's name at the source."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])


def download(sources: Sequence[Source], to: Path, what: str, or_else: str = "") -> Path:
    """The file at `to`, fetched from the first source that has it; no request is made where it is there already.

    what: what it is to a person, for messages ("the resnet18 weights"); or_else: where else it may be put by hand. A
    stopped download goes on where it was. Raises `FetchError` where no source gives it, where kit is offline, or where
    another file has that name (it is never overwritten), and `OutputError` where the disk refuses.
    """
    if not sources:
        raise ValueError("no sources; expected at least one")
    switch, failures = offline(), []
    try:
        if to.exists():
            return _expected(to, sources, what)
        for source in () if switch else sources:
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                return _fetch(source, to)
            except _Failed as failure:
                failures.append(f"{source.host}: {failure}")
    except OSError as error:
        raise OutputError(f"{to} cannot be written: {error.strerror}", fix="choose another folder") from error
    why = f"{switch} forbids to fetch it" if switch else f"no source gave it:\n  {'; '.join(failures)}"
    fix = f'get "{sources[0].name}" by hand ({sources[0].url}) and put it at {to.absolute()}{or_else}'
    raise FetchError(f'"{to.name}" is missing ({what}), and {why}', fix=fix)


def extract(archive: Path, into: Path) -> Path:
    """Unpack a tar.gz into the new folder `into`, which appears when it is whole.

    Raises `FetchError` for a damaged archive, or one with a member that would leave the folder (none is then kept),
    and `OutputError` where `into` is there already or the disk refuses.
    """
    if into.exists():
        raise OutputError(f"{into} is there already", fix="remove it yourself, or unpack into another folder")
    partial = into.with_name(f".{into.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(partial, filter="data")
        return partial.rename(into)
    except tarfile.FilterError as error:
        problem = f'{archive} holds "{error.tarinfo.name}", which would leave the folder; nothing was unpacked'
        raise FetchError(problem, fix="take the archive from a source that you trust") from error
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FetchError(f"{archive} is damaged: {error}", fix="remove it and fetch it again") from error
    except OSError as error:
        problem = f"{archive} cannot be unpacked into {into}: {error.strerror}"
        raise OutputError(problem, fix="make room, or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Failed(Exception):
    """A source does not give the file; its text says why, in a few words."""


class _Cut(Exception):
    """The connection ended early; another attempt may go on."""


class _Partial:
    """The part of a file that has arrived, and the notes that say of what it is a part."""

    def __init__(self, to: Path, url: str):
        self.to, self.url = to, url
        self.path = to.with_name(f"{to.name}.partial")
        self.notes_path = to.with_name(f"{to.name}.partial.json")

    def notes(self) -> dict:
        """Address, version and size of what the part is of; {} where there is no part of this address."""
        try:
            notes = json.loads(self.notes_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if self.path.is_file() and isinstance(notes, dict) and notes.get("url") == self.url else {}

    def size(self) -> int:
        return self.path.stat().st_size if self.notes() else 0

    def headers(self) -> dict[str, str]:
        """Ask for what follows the part, or for the whole if the file has changed since (If-Range)."""
        if not self.size():
            return {}
        unchanged = self.notes().get("version")
        return {"Range": f"bytes={self.size()}-"} | ({"If-Range": unchanged} if unchanged else {})

    def is_continued_by(self, response) -> bool:
        """Whether the answer holds the bytes that follow, of the same version. Not every server heeds If-Range."""
        notes, size = self.notes(), self.size()
        parts = re.match(r"bytes (\d+)-\d*/(\d+|\*)", response.headers.get("Content-Range", ""))
        if response.status != 206 or not size or not parts:
            return False
        same_version = notes.get("version") in (None, _version(response))
        return int(parts[1]) == size and parts[2] in ("*", str(notes.get("size"))) and same_version

    def begin(self, response) -> None:
        """Start over. The old part goes first, so that no stop leaves it beside the new notes."""
        self.discard()
        write_json(self.notes_path, {"url": self.url, "version": _version(response), "size": response.length})

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.notes_path.unlink(missing_ok=True)

    def finish(self) -> Path:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(self.to)
        self.notes_path.unlink(missing_ok=True)
        return self.to


def _expected(to: Path, sources: Sequence[Source], what: str) -> Path:
    if any(source.digest.fits(to) for source in sources):
        return to
    digest = sources[0].digest
    problem = f"{to} is not {what}: {digest.algorithm} {digest.of(to)}, expected {digest.hexadecimal.lower()}"
    if digest.size not in (None, to.stat().st_size):
        problem = f"{to} is not {what}: {to.stat().st_size:,} bytes, expected {digest.size:,}"
    raise FetchError(problem, fix="move it away or remove it yourself, then run again")


def _fetch(source: Source, to: Path) -> Path:
    """Fetch from one source, or raise `_Failed`."""
    partial = _Partial(to, source.url)
    for _ in range(ATTEMPTS):
        try:
            resumed = _receive(source, partial)
        except _Cut:
            continue
        if source.digest.fits(partial.path):
            return partial.finish()
        partial.discard()
        # A resumed file may be a mixture of two versions: it gets another chance, as a whole.
        if not resumed:
            raise _Failed("wrong checksum")
    raise _Failed("connection cut")


def _receive(source: Source, partial: _Partial) -> bool:
    """Bring the part to its full length; whether bytes of an earlier attempt are in it."""
    with _open(source.url, partial.headers()) as response:
        if response.status == 416:  # Nothing follows what is there: the digest decides whether it is the file.
            return True
        resumed = partial.is_continued_by(response)
        if not resumed:
            if response.status != 200:
                partial.discard()
                raise _Cut
            partial.begin(response)
        start = partial.size()
        total = None if response.length is None else start + response.length
        if None not in (total, source.digest.size) and total != source.digest.size:
            partial.discard()
            raise _Failed(f"wrong size ({total:,} bytes, expected {source.digest.size:,})")
        with partial.path.open("ab") as file, byte_bar(partial.to.name, total, start) as advance:
            for block in _blocks(response):
                file.write(block)
                advance(len(block))
    if total is not None and partial.size() < total:
        raise _Cut
    return resumed


def _open(url: str, headers: dict[str, str]):
    request = Request(url, headers={"User-Agent": f"kit/{_kit_version()}", **headers})
    try:
        look(url)
        return build_opener().open(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == 416 and headers:
            return error
        raise _Failed(str(error.code)) from error
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            raise _Cut from error
        raise _Failed(_in_a_few_words(cause)) from error


def _blocks(response) -> Iterator[bytes]:
    try:
        while block := response.read1(BLOCK_BYTES):
            yield block
    except (OSError, HTTPException) as error:
        raise _Cut from error


def _version(response) -> str | None:
    """What If-Range may hold: a strong ETag, or else the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _in_a_few_words(cause: object) -> str:
    if isinstance(cause, socket.gaierror) or getattr(cause, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "no route"
    if isinstance(cause, TimeoutError):
        return "no answer"
    return "connection refused" if isinstance(cause, ConnectionRefusedError) else str(cause) or type(cause).__name__


def _kit_version() -> str:
    try:
        return version("kit")
    except PackageNotFoundError:
        return "0"
