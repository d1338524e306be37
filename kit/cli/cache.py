"""kit cache: what kit keeps on this machine to save time, and how to remove it."""

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

    Decoded images (20 GB at most) and features (5 GB at most) save time when the same images are trained on again; what
    was not used for the longest time is removed first.
    """
    from kit.data import decode
    from kit.features import store

    kept = (
        ("decoded images", decode.cache_files(), decode.MOST_DISK),
        ("features of images", store.stores(), store.MOST_BYTES),
    )
    print(f"{cache_folder()}:")
    for what, entries, most in kept:
        print(f"{what}: {len(entries)}, {_size(sum(size for _, size in entries))} of at most {_size(most)}")
        for path, size in entries:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            print(f"  {path.name}  {_size(size)}  last used {used}")
    if clear:
        for path in (path for _, entries, _ in kept for path, _ in entries):
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
