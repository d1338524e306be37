"""kit cache: what kit keeps on this machine to be quicker, and how to be rid of it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from kit.files import cache_folder

Clear = Annotated[bool, typer.Option("--clear", help="remove the decoded images; they are made anew when needed")]


def cache(clear: Clear = False) -> None:
    """List what lies in kit's cache (KIT_CACHE, or ~/.cache/kit): decoded images, last used first; what was fetched.

    Decoded images are kept for the next training on the same files, 20 GB at most; what was used longest ago goes.
    """
    from kit.data.decoded import MOST_DISK, cached

    files = cached()
    print(f"{cache_folder()}: {len(files)} files of decoded images, {_size(sum(size for _, size in files))} of at most "
          f"{_size(MOST_DISK)}")  # fmt: skip
    for path, size in files:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        print(f"  {path.name}  {_size(size)}  last used {used}")
        if clear:
            path.unlink(missing_ok=True)
    if clear and files:
        print("removed")
    for path in _others():
        print(f"  {path.name}  {_size(_bytes(path))}  fetched")


def _others() -> list[Path]:
    folder = cache_folder()
    return sorted(path for path in folder.iterdir() if path.name != "decoded") if folder.is_dir() else []


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else path.stat().st_size


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
