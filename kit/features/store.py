"""A cache of features on disk, by the SHA-256 of the image, so that another training computes none of them again.

store = Store(key); known = store.read(); store.add({sha256: features})       # known[sha256]: float32 (f,)

A store is a folder in kit's cache. Its key has everything that determines the features apart from the image: the
body's weights, the size and the way of resizing. Each `add` writes one new file, atomically; files are never changed,
so several processes can use one store at the same time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kit.console import say
from kit.errors import OutputError
from kit.files import atomic_path, cache_folder

FOLDER = "features"
SUFFIX = ".safetensors"
MAX_BYTES = 5_000_000_000
HASH_BYTES = 32
_IN_MEMORY: dict[Path, dict[str, np.ndarray]] = {}  # features that could not be written, by the store's folder


class Store:
    """The features of one body with one preparation of images."""

    def __init__(self, key: Mapping[str, Any]):
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:HASH_BYTES]
        self.folder = cache_folder() / FOLDER / name

    def exists(self) -> bool:
        """Whether features were added before, by this process or another."""
        return self.folder in _IN_MEMORY or self.folder.is_dir()

    def read(self) -> dict[str, np.ndarray]:
        """All features of the store by the image's SHA-256, float32 (f,). A file that cannot be read is removed."""
        known = dict(_IN_MEMORY.get(self.folder, {}))
        for path in sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder.is_dir() else ():
            known |= _read_file(path)
        with suppress(OSError):  # a read-only cache, or features in memory alone
            os.utime(self.folder)
        return known

    def add(self, features: Mapping[str, np.ndarray]) -> None:
        """Store features by the image's SHA-256; in this process's memory where the disk is full or read-only."""
        if not features:
            return
        try:
            self._write(features)
        except (OSError, OutputError) as error:
            reason = error.problem if isinstance(error, OutputError) else f"{self.folder}: {error.strerror}"
            say(f"note: the cache cannot be written ({reason}); features are kept in memory")
            _IN_MEMORY.setdefault(self.folder, {}).update(features)

    def read_file(self, name: str) -> bytes | None:
        """The content that `add_file` wrote; None where the file is missing or damaged."""
        try:
            stored = (self.folder / name).read_bytes()
        except OSError:
            return None
        digest, content = stored[:HASH_BYTES], stored[HASH_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def add_file(self, name: str, content: bytes) -> None:
        """Store another file that belongs to the same body; errors of the disk are ignored."""
        with suppress(OSError, OutputError):
            self._write_file(name, hashlib.sha256(content).digest() + content)

    def _write(self, features: Mapping[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        hashes = np.stack([np.frombuffer(bytes.fromhex(name), np.uint8) for name in features])
        data = save({"hashes": hashes, "features": np.stack(list(features.values()))})
        self._write_file(f"{hashlib.sha256(data).hexdigest()[:HASH_BYTES]}{SUFFIX}", data)

    def _write_file(self, name: str, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        make_room(len(data), keep=self.folder)
        with atomic_path(self.folder / name) as partial:
            partial.write_bytes(data)


def _read_file(path: Path) -> dict[str, np.ndarray]:
    """The features of one file by hash. An invalid file is removed, because its features can be computed again."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
        hashes, features = arrays["hashes"], arrays["features"]
        if hashes.shape != (len(features), HASH_BYTES) or not np.isfinite(features).all():
            raise ValueError("not what was written")
        return {row.tobytes().hex(): values for row, values in zip(hashes, features, strict=True)}
    except OSError:  # for example removed by another process to free space
        return {}
    except (SafetensorError, KeyError, ValueError):
        with suppress(OSError):
            path.unlink()
        return {}


def stores() -> list[tuple[Path, int]]:
    """The folders of all stores with their sizes in bytes, most recently used first."""
    parent = cache_folder() / FOLDER
    folders = sorted(parent.iterdir(), key=lambda one: -one.stat().st_mtime) if parent.is_dir() else []
    return [(one, sum(path.stat().st_size for path in one.glob("*"))) for one in folders]


def make_room(needed: int, keep: Path) -> None:
    """Remove the least recently used stores, except `keep`, until `needed` more bytes fit into 5 GB."""
    there = stores()
    total = sum(size for _, size in there)
    while there and total + needed > MAX_BYTES:
        folder, size = there.pop()
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
