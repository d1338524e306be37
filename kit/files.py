"""Writing files so that a stop at any moment loses nothing, and hashing them.

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

LARGEST_PIECE = 2**24


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it replaces `path` when the block ends well, and is removed when it does not.

    The bytes are on the disk (fsync) before the name changes, so that a power cut leaves the old file or the new one.
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
    """Raise `OutputError` where the folder that `path` is to lie in is not there."""
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}", fix="make that folder first")


def _umask() -> int:
    """The permissions that the user takes from new files; some writers leave theirs for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; a float that is not finite is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits.

    In large pieces that are not copied: a thread that hashes then hardly waits for those that import, nor they for it.
    """
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        for start in range(0, size, LARGEST_PIECE):
            with mmap(file.fileno(), min(LARGEST_PIECE, size - start), access=ACCESS_READ, offset=start) as piece:
                digest.update(piece)
    return digest.hexdigest()


def packaged(name: str) -> Path:
    """Where kit's own `sample` or `weights` folder lies: in the installed package, or in the repository's data/."""
    package = Path(__file__).parent
    installed = package / "_files" / name
    return installed if installed.is_dir() else package.parent / "data" / name


def cache_folder() -> Path:
    """Where kit keeps what it fetched: $KIT_CACHE, or ~/.cache/kit."""
    return Path(os.environ.get("KIT_CACHE") or "~/.cache/kit").expanduser()


def new_folder(path: Path) -> Path:
    """Make `path` as a new, empty folder. Raises `OutputError` where something is there already or the disk refuses."""
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


def can_be_made(path: Path) -> Path:
    """`path`, after trying that `new_folder` will make it later: nothing is left of the trial."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    new_folder(path)
    for folder in missing:
        folder.rmdir()
    return path
