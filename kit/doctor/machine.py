"""Cores, memory, limits, folders and kit's own files, as the system tells them.

machine().allowed                                # 2.0: cores that a container may use, of all there are
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kit.doctor.facts import Machine, Place, Shipped
from kit.files import cache_folder, packaged, sha256
from kit.machine import core_count

MOST_FILES = 20_000
SUMS = "SHA256SUMS"


def machine(root: Path = Path("/")) -> Machine:
    """Cores, memory and limits. root: where /proc, /sys and /dev lie."""
    total, available = memory(root)
    return Machine(
        cores=os.cpu_count() or 1,
        allowed=allowed_cores(root),
        memory=total,
        available=available,
        shared_memory=_free(root / "dev/shm") if (root / "dev/shm").is_dir() else None,
        open_files=open_files(),
    )


def groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, innermost first, for one controller ("cpu")."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        inner = top / path.strip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def allowed_cores(root: Path) -> float:
    """The cores that this process may use: those it is bound to, or the share that a container was given, if less."""
    shares = [float(core_count())]
    for folder in groups(root, "cpu"):
        quota, period = [*_words(folder / "cpu.max"), "", ""][:2]
        quota = quota or next(iter(_words(folder / "cpu.cfs_quota_us")), "")
        period = period or next(iter(_words(folder / "cpu.cfs_period_us")), "")
        if quota.isdigit() and period.isdigit() and int(period):
            shares.append(int(quota) / int(period))
    return min(shares)


def memory(root: Path) -> tuple[int | None, int | None]:
    """The memory that this process may use, and how much of it is free, in bytes; None where unknown."""
    lines = [line.split() for line in _lines(root / "proc/meminfo")]
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
    if "MemTotal" not in kilobytes:
        known = getattr(os, "sysconf_names", {})
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in known else None
        return total, None
    limits = [kilobytes["MemTotal"] * 1024]
    for folder in groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [int(word) for word in _words(folder / name) if word.isdigit()]
    free = kilobytes.get("MemAvailable")
    return min(limits), None if free is None else min(free * 1024, *limits)


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def open_files() -> int | None:
    """How many files a process may have open; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def places() -> tuple[Place, ...]:
    """The folders that kit, and what it stands on, write to."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    torch = Path(os.environ.get("TORCH_HOME") or caches / "torch").expanduser()
    hub = Path(os.environ.get("HF_HOME") or caches / "huggingface").expanduser()
    try:
        temporary = tempfile.gettempdir()
    except OSError:  # None of the usual folders takes a file.
        temporary = os.environ.get("TMPDIR") or "/tmp"
    return (
        place("kit's cache", cache_folder(), "KIT_CACHE", measured=True),
        place("torch's cache", torch, "TORCH_HOME", measured=True),
        place("Hugging Face's cache", hub, "HF_HOME", measured=True),
        place("this folder", Path.cwd()),
        place("temporary files", Path(temporary), "TMPDIR"),
    )


def place(name: str, path: Path, variable: str = "", measured: bool = False) -> Place:
    """One folder, or the place where it would be made; measured: with the size of what lies there."""
    parent = next((folder for folder in (path, *path.parents) if folder.exists()), Path(path.anchor))
    writable = os.access(parent, os.W_OK | os.X_OK) and parent.is_dir()
    taken, counted = folder_size(path) if measured else (None, True)
    return Place(name, str(path), variable, taken, counted, writable, _free(parent))


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def folder_size(path: Path, most: int = MOST_FILES) -> tuple[int, bool]:
    """The bytes of the files in a folder, links not followed, and whether all were counted or only the first `most`."""
    total = count = 0
    for folder, _, names in os.walk(path):
        for name in names:
            if count == most:
                return total, False
            count += 1
            try:
                total += os.lstat(Path(folder, name)).st_size
            except OSError:  # It went away meanwhile.
                continue
    return total, True


def shipped() -> tuple[Shipped, ...]:
    """The bundled weights against their list of SHA-256 digests, and the drawn sample, which must hold images."""
    folder, sample = packaged("weights"), packaged("sample")
    listed = {name: digest for digest, name in (line.split() for line in _lines(folder / SUMS))}
    files = [Shipped(name, _state(folder / name, digest)) for name, digest in listed.items()]
    if not files:
        files = [Shipped(SUMS, "missing")]
    return (*files, Shipped("the drawn sample", "whole" if any(sample.glob("*.jpg")) else "missing"))


def _state(path: Path, digest: str) -> str:
    if not path.is_file():
        return "missing"
    return "whole" if sha256(path) == digest else "changed"
