"""All facts about this machine; torch is asked in another process meanwhile.

facts = gather()
"""

import os
import platform
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kit.doctor.facts import Facts, Python, System
from kit.doctor.installed import installed
from kit.doctor.machine import machine, places, shipped
from kit.doctor.network import hosts, proxies
from kit.doctor.nvidia import nvidia
from kit.doctor.trial import answer_of, ask

IMPORT_SECONDS = 180
HOST_SECONDS = 5
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "PYTHONPATH",
    "PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK",
)
LIBRARY = re.compile(r"(lib)?(cudnn|cudart|cublas|cusparse|cusolver|nvJitLink|nccl|nvrtc)\w*\.(so[.\d]*|dll)", re.I)
UNVERIFIED = re.compile(r"^ssl_verify:\s*(no|false)\b", re.I | re.M)
CONDAS = re.compile(r"pytorch|pytorch-cuda|torchvision|cudatoolkit|cuda-cudart|cudnn|(keras|tensorflow)-gpu")


def gather(network: bool = False, seconds: float = IMPORT_SECONDS) -> Facts:
    """Everything that `examine` judges. network: ask the hosts that downloads come from, else nothing leaves here.

    seconds: how long torch and fastai may take to import. Where a look fails, its facts stay at their defaults and
    `unseen` says why: the machine is broken, that is why somebody asks.
    """
    process = ask()
    looks: dict[str, Callable[[], Any]] = {
        "packages": installed,
        "python": python,
        "system": system,
        "nvidia": nvidia,
        "machine": machine,
        "places": places,
        "shipped": shipped,
        "proxies": proxies,
        "hosts": lambda: hosts(HOST_SECONDS) if network else None,
        "torch": lambda: answer_of(process, seconds),
    }
    facts, unseen = {}, []
    for name, look in looks.items():
        try:
            facts[name] = look()
        except Exception as error:
            unseen.append(f"{name}: {type(error).__name__}: {error}")
    return Facts(**facts, unseen=tuple(unseen))


def python() -> Python:
    """This interpreter, and what can install packages into it."""
    return Python(
        version=platform.python_version(),
        executable=sys.executable or "python",
        bits=struct.calcsize("P") * 8,
        kind=kind_of(Path(sys.prefix), sys.prefix != sys.base_prefix),
        prefix=sys.prefix,
        pip="pip" if find_spec("pip") else "uv" if shutil.which("uv") else "",
        activated=activated(os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX", ""), Path(sys.prefix)),
    )


def activated(named: str, prefix: Path) -> str:
    """The environment that the shell names, where it is not the one that runs."""
    return "" if not named or Path(named).resolve() == prefix.resolve() else named


def kind_of(prefix: Path, virtual: bool) -> str:
    """What an interpreter belongs to: venv, conda base, conda or system. Only conda's base holds other environments."""
    if virtual:
        return "venv"
    if not (prefix / "conda-meta").is_dir():
        return "system"
    return "conda base" if (prefix / "condabin").is_dir() else "conda"


def system(root: Path = Path("/")) -> System:
    """The operating system, and which libraries of CUDA lie in the way."""
    marks = (root / ".dockerenv", root / "run/.containerenv")
    release = _text(root / "proc/version").lower()
    named = re.search(r'^ID="?(\w+)', _text(root / "etc/os-release"), re.M)
    return System(
        name=platform.system(),
        machine=platform.machine(),
        distribution=named[1] if named else "",
        wsl="microsoft" in release,
        container=any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ,
        translated=platform.system() == "Darwin" and "ARM64" in platform.version() and platform.machine() == "x86_64",
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        libraries=tuple(libraries(os.environ.get("PATH" if os.name == "nt" else "LD_LIBRARY_PATH", ""))),
        toolkits=tuple(str(folder) for folder in sorted((root / "usr/local").glob("cuda-*")) if folder.is_dir()),
        conda=conda_packages(Path(sys.prefix)),
        conda_unverified=bool(UNVERIFIED.search(_text(Path("~/.condarc").expanduser()))),
        shadows=tuple(shadows(Path.cwd())),
        source=source(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def libraries(search: str) -> Iterator[str]:
    """CUDA's and cuDNN's files in the folders of a search path; the system looks there before it looks at torch's."""
    for folder in dict.fromkeys(part for part in search.split(os.pathsep) if part):
        try:
            found = sorted(Path(folder).iterdir())
        except OSError:
            continue
        yield from (str(path) for path in found if LIBRARY.fullmatch(path.name))


def conda_packages(prefix: Path) -> dict[str, str]:
    """conda's own torch, CUDA and cuDNN in an environment, with their versions."""
    found = {}
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        name, version = [*path.stem.rsplit("-", 2), "", ""][:2]
        if CONDAS.fullmatch(name):
            found[name] = version
    return found


def shadows(folder: Path) -> Iterator[str]:
    """Files in a folder that a script run there would import in place of a package."""
    for name in ("torch", "torchvision", "fastai", "timm", "gradio", "numpy", "kit"):
        if (folder / f"{name}.py").is_file():
            yield str(folder / f"{name}.py")


def source() -> str:
    """kit's repository, where kit runs from one; "" where it was installed from a wheel."""
    repository = Path(__file__).parents[2]
    return str(repository) if (repository / "pyproject.toml").is_file() else ""
