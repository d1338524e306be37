"""kit cache: list and clear the files that kit keeps between runs."""

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from kit.files import cache_folder

Clear = Annotated[
    bool, typer.Option("--clear", help="remove decoded images and features; they are computed again when needed")
]


def cache(clear: Clear = False) -> None:
    """List kit's cache (KIT_CACHE, or ~/.cache/kit): decoded images, features of images, and what was downloaded.

    Decoded images (at most 20 GB) and features (at most 5 GB) save time when the same images are used again. The least
    recently used files are removed first.
    """
    from kit.data import decode
    from kit.features import store

    caches = (
        ("decoded images", decode.cache_files(), decode.MAX_DISK),
        ("features of images", store.stores(), store.MAX_BYTES),
    )
    print(f"{cache_folder()}:")
    for what, entries, most in caches:
        print(f"{what}: {len(entries)}, {_size(sum(size for _, size in entries))} of at most {_size(most)}")
        for path, size in entries:
            last_used = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            print(f"  {path.name}  {_size(size)}  last used {last_used}")
    if clear:
        for path in (path for _, entries, _ in caches for path, _ in entries):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        print("removed")
    for path in _downloads(exclude={decode.FOLDER, store.FOLDER}):
        print(f"  {path.name}  {_size(_bytes(path))}  downloaded")


def _downloads(exclude: set[str]) -> list[Path]:
    folder = cache_folder()
    return sorted(path for path in folder.iterdir() if path.name not in exclude) if folder.is_dir() else []


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else path.stat().st_size


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
