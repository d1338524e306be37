"""Write files and folders atomically, claim folders, reserve space, and find the folders of cache and packaged data.

with atomic_path(Path("model.safetensors")) as partial: partial.write_bytes(data)
"""

import errno
import hashlib
import heapq
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

from kit.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PARTIAL = ".partial"
CHECKPOINT = "checkpoint"  # in a run folder, until the run is done
CLAIMED: set[Path] = set()  # folders that this process is writing
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SORTED_AT_ONCE = 50_000
MAKE_ROOM = "make room (or raise the limit: ulimit -f, quota), or choose another path"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; it replaces `path` when the block succeeds, and is removed when it fails.

    The data is flushed (fsync) before the rename, so that a power failure leaves either the old file or the new one.
    Raises `OutputError` where the file cannot be written.
    """
    check_parent(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def check_parent(path: Path) -> None:
    """Raise `OutputError` where the parent folder of `path` does not exist."""
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}", fix="make that folder first")


def _umask() -> int:
    """The process's umask, to give files the usual permissions: some writers make them readable by the owner only."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically; bytes of file names that are not UTF-8 are escaped with a backslash."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Raises `ValueError` for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged(name: str) -> Path:
    """The folder `sample` or `weights` that comes with kit: in the installed package, or in the repository's data/."""
    package = Path(__file__).parent
    installed = package / "_files" / name
    return installed if installed.is_dir() else package.parent / "data" / name


def cache_folder() -> Path:
    """The folder for downloads, decoded images and features: $KIT_CACHE, or ~/.cache/kit."""
    return Path(os.environ.get("KIT_CACHE") or "~/.cache/kit").expanduser()


def new_folder(path: Path) -> Path:
    """Create `path` as an empty folder; unfinished files of a killed process are removed.

    Raises `OutputError` where it has other content or cannot be written.
    """
    if path.is_file():
        raise OutputError(f"{path} is a file; a folder was expected", fix="choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
        inside = [one.name for one in path.iterdir()]
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix="choose another --out") from error
    if CHECKPOINT in inside:
        fix = f"go on with kit fine-tune --resume {path}, or choose another --out"
        raise OutputError(f"{path} holds a run that was stopped", fix=fix)
    if not all(name.endswith(PARTIAL) for name in inside):
        unfinished = "result.json" not in inside and "bundle" in inside
        what = "holds a run that did not finish (no result.json)" if unfinished else "exists and is not empty"
        raise OutputError(f"{path} {what}", fix="choose another --out, or remove that folder yourself")
    remove_partial(path)
    return path


def remove_partial(folder: Path) -> None:
    """Remove what a process that was killed had not finished in `folder`, which this process holds."""
    for path in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Create `path`, or take it where it is an empty folder, for this block alone; it is removed if it stays empty.

    Raises `OutputError` where it has content, cannot be written, or is claimed by another thread or process. A process
    that is killed leaves no claim.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if missing:
        new_folder(path)
    with held(path):
        try:
            yield new_folder(path)
        finally:
            for folder in missing:
                with suppress(OSError):  # not empty
                    folder.rmdir()


@contextmanager
def held(path: Path) -> Iterator[Path]:
    """Claim a folder that exists, with its content. Raises `OutputError` where another thread or process holds it."""
    with locked(path):
        CLAIMED.add(path.absolute())
        try:
            yield path
        finally:
            CLAIMED.discard(path.absolute())


@contextmanager
def locked(folder: Path, shared: bool = False) -> Iterator[None]:
    """Hold `folder` until the block ends. Raises `OutputError` where another thread or process holds it.

    shared: others may hold it shared at the same time.
    """
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        fix = "wait until that has ended, or choose another folder (--out)"
        raise OutputError(f"another kit is writing {folder}", fix=fix) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # child processes may still have it open
        os.close(descriptor)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block succeeds, and is removed when it fails.

    `path` is claimed from the start. Raises `OutputError` where it cannot be written.
    """
    with claimed(path):
        partial = None
        try:
            partial = Path(tempfile.mkdtemp(PARTIAL, f".{path.name}.", path.parent))
            partial.chmod(0o777 & ~_umask())
            yield partial
            partial.rename(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            shutil.rmtree(partial or "", ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error of a file or folder that the system does not let us write."""
    return OutputError(f"{path} cannot be written: {error.strerror or error}", fix=MAKE_ROOM)


def allocate(file: IO[bytes], count: int) -> None:
    """Reserve `count` bytes on disk for an open file. Raises `OSError` where there is no room.

    Without it, writing to the memory map of a file on a full disk ends the process by a signal (SIGBUS).
    """
    try:
        os.posix_fallocate(file.fileno(), 0, count)
    except AttributeError:  # neither on Windows nor on macOS
        return
    except OSError as error:  # some file systems cannot reserve
        if error.errno in NO_ROOM:
            raise


@contextmanager
def reserved(folder: Path, count: int) -> Iterator[None]:
    """Keep `count` bytes of `folder`'s disk free for after the block. Raises `OutputError` where there is no room."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            allocate(file, count)
        except OSError as error:
            problem = f"{folder} has no room for the {count / 1e6:.0f} MB that may be written there: {error.strerror}"
            raise OutputError(problem, fix=MAKE_ROOM) from error
        yield


def sorted_texts(texts: Iterable[str], at_once: int = SORTED_AT_ONCE) -> Iterator[str]:
    """Texts in order. Of more than `at_once`, sorted parts are written to temporary files and merged, so that memory
    does not grow with their number."""
    source = iter(texts)
    first = sorted(islice(source, at_once))
    with ExitStack() as stack:
        parts = [first]
        while part := sorted(islice(source, at_once)):
            file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            write_texts(part, file)
            file.seek(0)
            parts.append(read_texts(file))
        yield from heapq.merge(*parts) if len(parts) > 1 else first


def write_texts(texts: Iterable[str], file: IO[str]) -> int:
    """Write a line for each text, as JSON, because names of files may hold any character; returns their number."""
    count = 0
    for count, text in enumerate(texts, 1):  # noqa: B007
        file.write(f"{json.dumps(text)}\n")
    return count


def read_texts(file: Iterable[str]) -> Iterator[str]:
    """The texts that `write_texts` wrote."""
    return map(json.loads, file)
