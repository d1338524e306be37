"""Download files: checked against a known digest, resumed after an interruption, with mirrors and instructions offline.

download([Source("https://host/weights.pth", "f37072fd")], Path("weights.pth"), "the weights")

A file gets its name only when it is complete and its digest matches. Until then it is `NAME.DIGEST.partial`, which any
source of the same digest continues.
"""

import hashlib
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import kit
from kit.console import byte_bar
from kit.errors import FetchError, OutputError
from kit.offline import check_connection, offline

ATTEMPTS, TIMEOUT_SECONDS = 5, 15
BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class Source:
    """A server that has a file: its http or https URL, and the digest of the file.

    digest: hexadecimal, or its first digits, at least 8, as in `resnet18-f37072fd.pth`. algorithm: its name in hashlib.
    first_bytes: hash only this many bytes from the start. size: of the whole file, in bytes.
    """

    url: str
    digest: str
    algorithm: str = "sha256"
    first_bytes: int | None = None
    size: int | None = None

    def __post_init__(self):
        if not re.fullmatch("[0-9a-f]{8,}", self.digest):
            raise ValueError(f'digest="{self.digest}"; expected 8 or more hexadecimal digits, in lower case')

    @property
    def host(self) -> str:
        """Host and port, without a password."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The file's name at the source."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    def digest_of(self, path: Path) -> str:
        """The digest of the file at `path`, cut to the number of digits expected."""
        with path.open("rb") as file:
            content = file if self.first_bytes is None else BytesIO(file.read(self.first_bytes))
            return hashlib.file_digest(content, self.algorithm).hexdigest()[: len(self.digest)]

    def fits(self, path: Path) -> bool:
        """Whether the file at `path` is the expected one."""
        return self.size in (None, path.stat().st_size) and self.digest_of(path) == self.digest


def download(sources: Sequence[Source], to: Path, what: str, or_else: str = "") -> Path:
    """The file at `to`, downloaded from the first source that has it; no request is made where it exists already.

    what: a description for messages ("the resnet18 weights"). or_else: where else the file may be put by hand. An
    interrupted download is resumed. Raises `FetchError` where all sources fail, where kit is offline, or where another
    file has that name (it is never overwritten), and `OutputError` where the file cannot be written.
    """
    switch, failures = offline(), []
    try:
        if to.exists():
            return _expected(to, sources, what)
        for source in () if switch else sources:
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                _fetch(source, to)
            except _Failed as failure:
                failures.append(f"{source.host}: {failure}")
                continue
            for other in sources:
                _partial(other, to).unlink(missing_ok=True)
            return to
    except OSError as error:
        raise OutputError(f"{to} cannot be written: {error.strerror}", fix="choose another folder") from error
    why = f"{switch} forbids to fetch it" if switch else f"no source gave it:\n  {'; '.join(failures)}"
    fix = f'get "{sources[0].name}" by hand ({sources[0].url}) and put it at {to.absolute()}{or_else}'
    raise FetchError(f'"{to.name}" is missing ({what}), and {why}', fix=fix)


def extract(archive: Path, into: Path) -> Path:
    """Unpack a tar.gz into the new folder `into`, which appears only when it is complete.

    Raises `OutputError`, and leaves nothing behind, where `into` exists, the archive is damaged or has a member that
    would be written outside of the folder, or the disk is full.
    """
    if into.exists():
        raise OutputError(f"{into} is there already", fix="remove it yourself, or unpack into another folder")
    partial = into.with_name(f".{into.name}.{os.getpid()}.partial")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(partial, filter="data")
        return partial.rename(into)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        fix = "make room; where the archive is damaged, remove it and fetch it again"
        raise OutputError(f"{archive} cannot be unpacked into {into}: {error}", fix=fix) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Failed(Exception):
    """A source failed; the text says why."""


class _Cut(Exception):
    """The connection ended early; another attempt may resume."""


def _expected(to: Path, sources: Sequence[Source], what: str) -> Path:
    if any(source.fits(to) for source in sources):
        return to
    first, size = sources[0], to.stat().st_size
    if first.size in (None, size):
        problem = f"{to} is not {what}: {first.algorithm} {first.digest_of(to)}, expected {first.digest}"
    else:
        problem = f"{to} is not {what}: {size:,} bytes, expected {first.size:,}"
    raise FetchError(problem, fix="move it away or remove it yourself, then run again")


def _partial(source: Source, to: Path) -> Path:
    """The path of an incomplete download; the digest in its name says of which file it is a part."""
    return to.with_name(f"{to.name}.{source.digest[:8]}.partial")


def _fetch(source: Source, to: Path) -> None:
    """Fetch from one source, or raise `_Failed`."""
    partial = _partial(source, to)
    for _ in range(ATTEMPTS):
        start = partial.stat().st_size if partial.exists() else 0
        try:
            _receive(source, partial, start)
        except _Cut:
            continue
        if source.fits(partial):
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(to)
            return
        partial.unlink()
        # A resumed file may mix two versions, so it is downloaded once more from the start.
        if not start:
            raise _Failed("wrong checksum")
    raise _Failed("connection cut")


def _receive(source: Source, partial: Path, start: int) -> None:
    """Append what follows the `start` bytes that exist, or start over where the server sends the whole file."""
    with _open(source.url, {"Range": f"bytes={start}-"} if start else {}) as response:
        if response.status == 416:  # the server has no further bytes: the digest decides
            return
        start = start if response.status == 206 else 0
        total = None if response.length is None else start + response.length
        if None not in (total, source.size) and total != source.size:
            partial.unlink(missing_ok=True)
            raise _Failed(f"wrong size ({total:,} bytes, expected {source.size:,})")
        with partial.open("ab" if start else "wb") as file, byte_bar(source.name, total, start) as advance:
            for block in _blocks(response):
                file.write(block)
                advance(len(block))
    if total is not None and partial.stat().st_size < total:
        raise _Cut


def _open(url: str, headers: dict[str, str]):
    try:
        check_connection(url)
        request = Request(url, headers={"User-Agent": f"kit/{kit.__version__}", **headers})
        return urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == 416 and headers:
            return error
        raise _Failed(str(error.code)) from error
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            raise _Cut from error
        raise _Failed(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__) from error


def _blocks(response) -> Iterator[bytes]:
    try:
        while block := response.read1(BLOCK_BYTES):
            yield block
    except (OSError, HTTPException) as error:
        raise _Cut from error
