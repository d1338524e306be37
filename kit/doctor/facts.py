"""What is known of a machine, and what was found there, as plain frozen values: `gather` fills them, `examine` judges.

Every fact has a default that is no cause for worry, so that a test makes up only the facts it is about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

GB = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """A line of the report. verdict: "fine", "note" or "wrong"; mend: exactly what to do, empty where all is fine."""

    name: str
    verdict: str
    what: str
    mend: str = ""


def fine(name: str, what: str) -> Finding:
    """All is as it should be."""
    return Finding(name, "fine", what)


def note(name: str, what: str, mend: str) -> Finding:
    """kit works, but slower than it could, or somebody should know."""
    return Finding(name, "note", what, mend)


def wrong(name: str, what: str, mend: str) -> Finding:
    """kit, or a part of it, does not work or does not use what is there."""
    return Finding(name, "wrong", what, mend)


@dataclass(frozen=True)
class Python:
    """The interpreter. kind: venv, conda, conda base or system; pip: what installs into it, "pip", "uv" or "".

    `activated` is another environment that the shell has activated, "" where it is this one or none.
    """

    version: str = "3.12.4"
    executable: str = "python"
    bits: int = 64
    kind: str = "venv"
    prefix: str = ""
    pip: str = "pip"
    activated: str = ""


@dataclass(frozen=True)
class Package:
    """An installed package: where, what it wants of others as far as that holds here, and whether kit needs it.

    `requires` holds texts like "torch>=2.14"; `python` is the range of Pythons that it declares.
    """

    name: str
    version: str
    folder: str = ""
    requires: tuple[str, ...] = ()
    python: str = ""
    ours: bool = True


@dataclass(frozen=True)
class System:
    """The operating system, and what of it decides which libraries are found.

    libraries: CUDA's and cuDNN's own files in the folders that are searched before torch's. toolkits: folders of
    installed CUDA toolkits. conda: conda's packages that bring torch, CUDA or cuDNN, with their versions. shadows:
    files in the current folder that bear a package's name. source: kit's repository, where kit runs from one.
    """

    name: str = "Linux"
    machine: str = "x86_64"
    distribution: str = ""
    wsl: bool = False
    container: bool = False
    translated: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    toolkits: tuple[str, ...] = ()
    conda: Mapping[str, str] = field(default_factory=dict)
    conda_unverified: bool = False
    shadows: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver sees it; memory in bytes."""

    index: int
    name: str
    total: int = 0
    used: int = 0
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Process:
    """A process that holds memory of a GPU, in bytes."""

    pid: int
    name: str
    memory: int
    gpu: int = 0


@dataclass(frozen=True)
class Nvidia:
    """What the NVIDIA driver says without torch. boards: GPUs on the bus, seen or not; error: what nvidia-smi said.

    `module` is the version of the loaded kernel module, `cuda` the newest CUDA that the driver takes, `nodes` whether
    the files stand in /dev through which programs reach the GPU.
    """

    boards: int = 0
    amd: int = 0
    module: str = ""
    nodes: bool = False
    smi: bool = False
    error: str = ""
    driver: str = ""
    cuda: str = ""
    gpus: tuple[Gpu, ...] = ()
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True)
class Device:
    """A GPU as torch sees it; error: what a small convolution on it said, "" where it worked; memory in bytes."""

    name: str
    title: str = ""
    capability: tuple[int, int] | None = None
    total: int = 0
    free: int = 0
    error: str = ""


@dataclass(frozen=True)
class Torch:
    """What a process said that imported torch, torchvision, fastai and kit, one after the other, and tried the GPUs.

    done: the stages that ended well; failed: the one that did not, with its error text and the process's exit code
    (negative: the signal that ended it; None: it was stopped for taking too long). `device` is where kit would train.
    """

    done: tuple[str, ...] = ()
    failed: str = ""
    error: str = ""
    exit: int | None = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    version: str = ""
    file: str = ""
    cuda: str | None = None
    hip: str | None = None
    cudnn: int | None = None
    cudnn_error: str = ""
    architectures: tuple[str, ...] = ()
    cuda_error: str = ""
    devices: tuple[Device, ...] = ()
    mps_built: bool = False
    mps: bool = False
    threads: int = 0
    numpy_error: str = ""
    device: str = ""
    precision: Mapping[str, str] = field(default_factory=dict)
    workers: int = 0


@dataclass(frozen=True)
class Machine:
    """Cores, memory (bytes) and limits; None where the system does not say. `allowed` cores of all `cores`."""

    cores: int = 1
    allowed: float = 1.0
    memory: int | None = None
    available: int | None = None
    shared_memory: int | None = None
    open_files: int | None = None


@dataclass(frozen=True)
class Place:
    """A folder that kit writes to; variable: what moves it elsewhere; size and free space in bytes.

    `counted` is false where so many files lie there that only the first were counted.
    """

    name: str
    path: str
    variable: str = ""
    size: int | None = None
    counted: bool = True
    writable: bool = True
    free: int = 10**12


@dataclass(frozen=True)
class Shipped:
    """A file that comes with kit; state: "whole", "missing", "changed" (its SHA-256 differs) or "unlisted"."""

    name: str
    state: str = "whole"


@dataclass(frozen=True)
class Host:
    """A host that downloads come from, and how it answered; error: why it could not be reached."""

    name: str
    use: str
    answer: str = ""
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything that `examine` looks at. hosts: None where the network was not asked; unseen: looks that failed."""

    python: Python = Python()
    packages: tuple[Package, ...] = ()
    system: System = field(default_factory=System)
    nvidia: Nvidia = Nvidia()
    torch: Torch = field(default_factory=Torch)
    machine: Machine = Machine()
    places: tuple[Place, ...] = ()
    shipped: tuple[Shipped, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[Host, ...] | None = None
    unseen: tuple[str, ...] = ()

    def package(self, name: str) -> Package | None:
        """The package of that name that an import would take: the first on the path."""
        return next((package for package in self.packages if package.name == name), None)


def size(count: float) -> str:
    """A number of bytes for people: 45 MB, 1.4 GB."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.0f} MB"
