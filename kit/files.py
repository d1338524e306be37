"""Write files atomically, hash them, and find the folders for results, cache and packaged data.

with atomic_path(Path("model.safetensors")) as partial: partial.write_bytes(data)
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from kit.errors import OutputError

BLOCK_BYTES = 2**24


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; it replaces `path` when the block succeeds, and is removed when it fails.

    The data is flushed (fsync) before the rename, so that a power failure leaves either the old file or the new one.
    Raises `OutputError` where the file cannot be written.
    """
    check_parent(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise OutputError(
            f"{path} cannot be written: {error.strerror}", fix="make room, or choose another path"
        ) from error
    finally:
        with suppress(FileNotFoundError):
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
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Raises `ValueError` for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits.

    The file is hashed in large memory-mapped blocks, so that the thread holds Python's lock only briefly.
    """
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        for start in range(0, size, BLOCK_BYTES):
            with mmap(file.fileno(), min(BLOCK_BYTES, size - start), access=ACCESS_READ, offset=start) as block:
                digest.update(block)
    return digest.hexdigest()


def packaged(name: str) -> Path:
    """The folder `sample` or `weights` that comes with kit: in the installed package, or in the repository's data/."""
    package = Path(__file__).parent
    installed = package / "_files" / name
    return installed if installed.is_dir() else package.parent / "data" / name


def cache_folder() -> Path:
    """The folder for downloads, decoded images and features: $KIT_CACHE, or ~/.cache/kit."""
    return Path(os.environ.get("KIT_CACHE") or "~/.cache/kit").expanduser()


def new_folder(path: Path) -> Path:
    """Create `path` as an empty folder. Raises `OutputError` where it has content or cannot be written."""
    if path.is_file():
        raise OutputError(f"{path} is a file; a folder was expected", fix="choose another --out")
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"{path} exists and is not empty", fix="choose another --out, or remove that folder yourself")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", fix="choose another --out") from error
    return path


def check_creatable(path: Path) -> Path:
    """Return `path` after checking that `new_folder(path)` succeeds; created folders are removed again."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    new_folder(path)
    for folder in missing:
        folder.rmdir()
    return path
