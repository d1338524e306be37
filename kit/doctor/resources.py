"""The operating system and what it gives: cores, memory, limits, disk, and the files that kit depends on.

about_machine(facts, Fixes(facts)); about_files(facts, Fixes(facts))
"""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from kit.doctor.findings import GB, Finding, fine, note, size, wrong
from kit.doctor.fixes import Fixes
from kit.files import cache_folder, packaged, sha256
from kit.machine import core_count
from kit.model.weight_paths import LITE0
from kit.recipe import Recipe

REPOSITORY = Path(__file__).parents[2]
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PYTHONPATH")
CUDA_LIBRARY = re.compile(r"(lib)?(cu(dnn|dart|blas|sparse|solver)|nvJitLink|nccl|nvrtc)\w*\.(so[.\d]*|dll)", re.I)
MODULES = ("torch", "torchvision", "fastai", "timm", "gradio", "numpy", "kit")
LITE0_PACKAGE = f"{LITE0.name}==0.1.0"  # the version in pyproject.toml
PREFETCH, FLOAT_BYTES = 2, 4
LITTLE_DISK, NO_DISK = 5 * GB, GB
LITTLE_MEMORY, NO_MEMORY = 4 * GB, 2 * GB
FEW_OPEN_FILES = 1024


def read_text(path: Path) -> str:
    """The text of a file; "" where it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def system(root: Path = Path("/"), prefix: Path = Path(sys.prefix)) -> SimpleNamespace:
    """The operating system, and what of it decides which libraries are found; prefix: the environment."""
    distribution = re.search(r'^ID="?(\w+)', read_text(root / "etc/os-release"), re.M)
    containers = (root / ".dockerenv", root / "run/.containerenv")
    search = os.environ.get("PATH" if os.name == "nt" else "LD_LIBRARY_PATH", "")
    libraries = [path for part in dict.fromkeys(search.split(os.pathsep)) if part for path in Path(part).glob("*")]
    conda_torch = [path.stem.split("-")[1] for path in (prefix / "conda-meta").glob("pytorch-[0-9]*.json")]
    return SimpleNamespace(
        name=platform.system(),
        distribution=distribution[1] if distribution else "",
        wsl="microsoft" in read_text(root / "proc/version").lower(),
        container=any(file.exists() for file in containers) or "KUBERNETES_SERVICE_HOST" in os.environ,
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        # CUDA's and cuDNN's own files in the folders that are searched before torch's.
        libraries=sorted(str(path) for path in libraries if CUDA_LIBRARY.fullmatch(path.name)),
        toolkits=sorted(str(folder) for folder in (root / "usr/local").glob("cuda-*")),
        conda_torch=conda_torch[0] if conda_torch else "",
        # Files that a program in this folder would import in place of a package.
        shadows=[str(Path.cwd() / f"{module}.py") for module in MODULES if Path(f"{module}.py").is_file()],
        source=str(REPOSITORY) if (REPOSITORY / "pyproject.toml").is_file() else "",
    )


def machine(root: Path = Path("/")) -> SimpleNamespace:
    """Cores, memory (bytes) and limits; a container's share of them counts. root: where /proc, /sys and /dev are."""
    import psutil  # not above: where it is missing, only these facts are

    memory, open_files = psutil.virtual_memory(), None
    if os.name == "posix":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        open_files = None if soft == resource.RLIM_INFINITY else soft
    quotas = [text.split() for text in _control_group(root, "cpu.max")]
    quotas += zip(*(_control_group(root, f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period")), strict=False)
    limits = [*_control_group(root, "memory.max"), *_control_group(root, "memory/memory.limit_in_bytes")]
    limit = min([memory.total, *(int(text) for text in limits if text.isdigit())])
    shared = root / "dev/shm"
    return SimpleNamespace(
        cores=os.cpu_count() or 1,
        allowed=min([float(core_count()), *(int(quota) / int(period) for quota, period in quotas if quota.isdigit())]),
        memory=limit,
        available=min(memory.available, limit),
        shared_memory=shutil.disk_usage(shared).free if shared.is_dir() else None,
        open_files=open_files,
    )


def _control_group(root: Path, name: str) -> Iterator[str]:
    """A file of this process's control group and of the groups around it; of the container's own, for version 1."""
    top = root / "sys/fs/cgroup"
    own = re.search(r"^0::/(.+)$", read_text(root / "proc/self/cgroup"), re.M)
    folder = top / own[1] if own else top
    for place in (folder, *folder.parents):
        if place.is_relative_to(top) and (text := read_text(place / name)):
            yield text


def places() -> list[SimpleNamespace]:
    """The folders that kit, torch and Hugging Face write to, with their free bytes.

    One that is not there yet is judged by the parent in which it would be made.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folders = {
        ("kit's cache", "KIT_CACHE"): cache_folder(),
        ("torch's cache", "TORCH_HOME"): Path(os.environ.get("TORCH_HOME") or caches / "torch"),
        ("Hugging Face's cache", "HF_HOME"): Path(os.environ.get("HF_HOME") or caches / "huggingface"),
        ("this folder", ""): Path.cwd(),
        ("temporary files", "TMPDIR"): Path(tempfile.gettempdir()),
    }
    found = []
    for (name, variable), folder in folders.items():
        path = folder.expanduser().absolute()
        parent = next(one for one in (path, *path.parents) if one.exists())
        writable = parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
        free = shutil.disk_usage(parent).free
        found.append(SimpleNamespace(name=name, path=str(path), variable=variable, writable=writable, free=free))
    return found


def shipped() -> dict[str, str]:
    """kit's own files and the weights of `--arch auto`: "whole", "missing" or "changed" (the SHA-256 differs)."""
    folder, sample = packaged("weights"), packaged("sample")
    listed = [line.split() for line in read_text(folder / "SHA256SUMS").splitlines()]
    files = {folder / name: digest for digest, name in listed} or {folder / "SHA256SUMS": ""}
    if LITE0.folder:  # a package that is not installed is reported with the packages
        files[LITE0.folder / "models" / LITE0.file] = LITE0.sha256
    found = {"the drawn sample": "whole" if any(sample.glob("*.jpg")) else "missing"}
    for path, digest in files.items():
        found[path.name] = "missing" if not path.is_file() else "whole" if sha256(path) == digest else "changed"
    return found


def about_machine(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """Cores, threads, loading processes, memory, shared memory, open files."""
    machine, torch = facts.machine, facts.torch
    share, usable = max(1, int(machine.allowed)), f"where {machine.allowed:g} cores may be used"
    cores = f"{machine.allowed:g} of {machine.cores}" if machine.allowed < machine.cores else f"{machine.cores}"
    yield fine("cores", f"{cores}, {torch.threads} threads" if torch.threads else cores)
    if torch.threads > max(2.0, 1.5 * machine.allowed):
        what = f"torch takes {torch.threads} threads {usable}: they wait for each other"
        yield note("cores", what, fix.set("OMP_NUM_THREADS", str(share)))
    elif facts.system.variables.get("OMP_NUM_THREADS") == "1" and share > 1:
        yield note("cores", f"OMP_NUM_THREADS=1 leaves {share - 1} of {share} cores idle", fix.unset("OMP_NUM_THREADS"))
    if torch.workers > max(2, 2 * share):
        yield note("workers", f"kit would load images with {torch.workers} processes {usable}", f"--workers {share}")
    memory = f"{size(machine.memory)}, {size(machine.available)} of it free"
    if machine.memory < NO_MEMORY:
        more = "raise the container's limit, or take a machine with 8 GB"
        yield wrong("memory", f"{memory}: too little to train", more)
    elif machine.available < LITTLE_MEMORY:
        yield note("memory", f"{memory}: little to train with", "--batch 16 --workers 0, or end other programs")
    else:
        yield fine("memory", memory)
    if machine.shared_memory is not None and torch.workers:
        # Loading processes hand over batches there; docker gives 64 MB, and when it is full, they end with a bus error.
        recipe = Recipe()
        needed = torch.workers * PREFETCH * recipe.batch * 3 * recipe.input_size**2 * FLOAT_BYTES
        free, loaders = size(machine.shared_memory), f"{torch.workers} loading processes"
        if machine.shared_memory >= needed:
            yield fine("shared memory", f"{free} in /dev/shm, {size(needed)} needed for {loaders}")
        else:
            docker, mount = "docker run --shm-size 2g ...", "sudo mount -o remount,size=2G /dev/shm"
            what = f"/dev/shm has {free} free; {loaders} need {size(needed)}, else: 'Bus error'"
            yield wrong("shared memory", what, f"{docker if facts.system.container else mount}   (or: --workers 0)")
    if machine.open_files is not None and machine.open_files < FEW_OPEN_FILES:
        what = f"{machine.open_files} at once: loading processes may stop with 'Too many open files'"
        yield note("open files", what, "ulimit -n 4096   (for good: in ~/.bashrc or ~/.zshrc)")


def about_files(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """The folders that kit writes to, and the files that it depends on."""
    for place in facts.places:
        elsewhere = fix.set(place.variable, "A_FOLDER_OF_YOURS") if place.variable else "cd A_FOLDER_OF_YOURS"
        if not place.writable:
            yield wrong(place.name, f"{place.path} cannot be written", elsewhere)
        elif place.free < LITTLE_DISK:
            what = f"{place.path}: its disk has only {size(place.free)} free"
            yield (wrong if place.free < NO_DISK else note)(place.name, what, f"make room, or elsewhere: {elsewhere}")
        else:
            yield fine(place.name, f"{place.path}; {size(place.free)} free")
    for name, state in facts.shipped.items():
        if state == "whole":
            continue
        what = f"{name} is missing" if state == "missing" else f"{name} was changed (its SHA-256 differs)"
        if name == LITE0.file:
            yield wrong(
                "weights",
                f"{what}; --arch auto starts from it where there is no network",
                fix.reinstall("--no-deps", LITE0_PACKAGE),
            )
        else:
            git = "git checkout -- data   (in kit's repository)"
            yield wrong("kit's files", what, git if facts.system.source else fix.reinstall("PATH_OF_KITS_WHEEL"))
    if set(facts.shipped.values()) == {"whole"}:
        yield fine("kit's files", ", ".join(facts.shipped))
