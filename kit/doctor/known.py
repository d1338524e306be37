"""Error texts that torch, CUDA, cuDNN and nvidia-smi are known for, what each means, and what mends it.

finding = recognised(IMPORTS, "libcudnn.so.9: cannot open shared object file", facts)
"""

import re
from dataclasses import dataclass

from kit.doctor import mends
from kit.doctor.facts import Facts, Finding, wrong


@dataclass(frozen=True)
class Known:
    """A text (a regular expression) and its meaning; {0} is its first group, other braces are `mends.commands`."""

    name: str
    pattern: str
    what: str
    mend: str


IMPORTS = (
    Known(
        "torchvision",
        r"operator torchvision::nms does not exist|Couldn't load custom C\+\+ ops|'torchvision'.* no attribute 'nms'",
        "its compiled operators are not for this torch: of another version, or one is a CUDA build and the other not",
        "{both}",
    ),
    Known(
        "cuDNN",
        r"(libcudnn[\w.]*|cudnn\w*\.dll)[^\n]*(?:cannot open|not found)",
        "{0} is missing or cannot be opened; torch brings its own, no cuDNN from NVIDIA or conda is needed",
        "{cudnn}",
    ),
    Known(
        "CUDA",
        r"undefined symbol: _*nvJitLink|libnvJitLink[^\n]*undefined symbol",
        "libcusparse found the nvJitLink of another CUDA first",
        "{libraries}",
    ),
    Known(
        "torch",
        r"undefined symbol: iJIT_NotifyEvent",
        "conda's MKL of 2024.1 or later lacks what this torch looks for",
        'conda install "mkl<2024.1"',
    ),
    Known("torch", r"(undefined symbol: \S+)", "{0}: a library of another version was loaded", "{libraries}"),
    Known(
        "CUDA",
        r"(lib(?:cu|nv|nccl)[\w.]*)[^\n]*cannot open|Could not find '(\w+\.dll)'|Error loading \"\S*?(cu\w+\.dll)",
        "{0} is missing; torch brings CUDA with it, no toolkit from NVIDIA is needed, so it is only half installed",
        "{owner}",
    ),
    Known(
        "system",
        r"version `((?:GLIBCXX|CXXABI)_[\d.]+)' not found",
        "the C++ library is too old for torch: {0} is not in it",
        "conda install -c conda-forge libstdcxx-ng   (without conda: a newer Linux, such as Ubuntu 22.04)",
    ),
    Known(
        "system",
        r"version `(GLIBC_[\d.]+)' not found",
        "this Linux is too old for torch: its C library has no {0}",
        "use a Linux of 2019 or later, such as Ubuntu 22.04, or a container of it: docker run -it ubuntu:22.04",
    ),
    Known(
        "torch",
        r"(\S+): (?:invalid ELF header|file too short|wrong ELF class)|WinError 193",
        "a library's file is damaged or of another kind of machine: {0}",
        "{libraries}",
    ),
    Known(
        "torch",
        r"\[?WinError (?:126|127|1114)\]?|DLL load failed",
        "a DLL that torch needs does not load; mostly Microsoft's Visual C++ runtime is missing or old",
        "winget install Microsoft.VCRedist.2015+.x64",
    ),
    Known(
        "numpy",
        r"_ARRAY_API not found|compiled using NumPy 1|numpy\.dtype size changed|numpy\.core\.multiarray failed",
        "a package was compiled for another NumPy than the one here",
        "{numpy}",
    ),
    Known(
        "torch",
        r"(\S+): cannot allocate memory in static TLS block",
        "{0} is loaded too late to get its place in memory",
        "{preload}{0}",
    ),
    Known(
        "imports",
        r"partially initialized module '(\w+)'",
        "a file {0}.py is imported in place of the package {0}",
        "rename that file {0}.py, and remove the folder __pycache__ beside it",
    ),
    Known(
        "torch",
        r"incompatible architecture",
        "a library for another processor: Python and torch must both be for arm64, or both for x86_64",
        "{again}",
    ),
    Known(
        "torch",
        r"oneMKL FATAL ERROR: Cannot load",
        "MKL does not find its parts: another MKL is found first, or the current folder is gone",
        "cd ~   (if that is not it: {libraries})",
    ),
    Known(
        "OpenMP",
        r"OMP: Error #15",
        "two copies of Intel's OpenMP in one process, conda's and pip's",
        "{fresh}",
    ),
    Known(
        "memory",
        r"Cannot allocate memory|MemoryError|WinError 1455|paging file is too small",
        "there is too little memory to load torch",
        "end other programs, or give this machine (its container, its page file) at least 8 GB",
    ),
    Known(
        "torch",
        r"failed to map segment from shared object",
        "the disk on which torch lies does not allow programs (noexec)",
        "{fresh}   (in a folder on another disk)",
    ),
    Known(
        "packages",
        r"(cannot import name '\w+' from '[\w.]+')|(module '[\w.]+' has no attribute '\w+')",
        "{0}: packages of versions that do not fit",
        "{upgrade}",
    ),
)

CUDA = (
    Known(
        "driver",
        r"driver on your system is too old|driver version is insufficient",
        "the NVIDIA driver {driver_version} is older than torch's CUDA {cuda} asks for",
        "{driver}{or_build}",
    ),
    Known(
        "driver",
        r"[Ee]rror 803|unsupported display driver / cuda driver combination",
        "the driver's library and its kernel module are of two versions: it was updated and not restarted since",
        "{reboot}",
    ),
    Known(
        "driver",
        r"[Ee]rror 804|forward compatibility was attempted",
        "a libcuda of a cuda-compat package is found before the driver's own, and works only on data-centre GPUs",
        "{away}   (in a container: sudo apt remove 'cuda-compat-*')",
    ),
    Known(
        "driver",
        r"[Ee]rror 802|system not yet initialized",
        "GPUs joined by NVSwitch wait for the fabric manager",
        "sudo systemctl restart nvidia-fabricmanager   (its version must be the driver's, {driver_version})",
    ),
    Known(
        "driver",
        r"CUDA unknown error|[Ee]rror 999",
        "the driver lost the GPU, as happens when a computer slept",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm   (else: {reboot})",
    ),
    Known(
        "cuDNN",
        r"(cuDNN version \d+) is not compatible with devices with SM",
        "{0} no longer knows this GPU",
        "{old_build}",
    ),
    Known(
        "GPU",
        r"no kernel image is available|invalid device function|is not compatible with the current PyTorch",
        "torch was compiled for other GPUs ({architectures})",
        "{build}",
    ),
    Known(
        "cuDNN",
        r"cuDNN version (?:incompatibility|mismatch): PyTorch was compiled\s+against (.+?) but ",
        "torch was compiled for cuDNN {0} and found another first",
        "{cudnn}",
    ),
    Known(
        "cuDNN",
        r"Unable to load any of \{(\w+)|Cannot load symbol (cudnn\w+)|"
        r"Could not (?:load|locate) (?:library )?(\S*cudnn\S*)|(CUDNN_STATUS_SUBLIBRARY\w*)",
        "parts of two cuDNNs met, or one is missing ({0})",
        "{cudnn}",
    ),
    Known(
        "cuDNN",
        r"(CU(?:DNN|BLAS)_STATUS_(?:NOT_INITIALIZED|ALLOC_FAILED|INTERNAL_ERROR))",
        "it does not start ({0}): the GPU's memory is full, or a cuDNN of another version was found first",
        "nvidia-smi   (end what fills the memory; else: {cudnn})",
    ),
    Known("GPU memory", r"out of memory", "other programs hold the GPU's memory", "{busy}"),
    Known(
        "GPU",
        r"busy or unavailable",
        "another program holds it alone (exclusive mode)",
        "sudo nvidia-smi --compute-mode=DEFAULT   (or end that program)",
    ),
    Known(
        "GPU",
        r"uncorrectable ECC|GPU is lost|fallen off the bus",
        "it failed, or lost its connection",
        "{reboot}   (when it happens again, the GPU, its cable or its power supply needs replacing)",
    ),
    Known(
        "GPU",
        r"No CUDA GPUs are available|no CUDA-capable device|Found no NVIDIA driver",
        "torch sees none, though there is one",
        "{seen}",
    ),
)

SMI = (
    Known(
        "driver",
        r"Driver/library version mismatch",
        "the driver's library and its kernel module are of two versions: it was updated and not restarted since",
        "{reboot}",
    ),
    Known(
        "driver",
        r"couldn't communicate with the NVIDIA driver",
        "its kernel module is not loaded, as happens when the kernel was updated",
        "sudo modprobe nvidia   (if that fails: {driver})",
    ),
    Known(
        "driver",
        r"blocked by the operating system",
        "Windows keeps WSL from the GPU",
        "in Windows: wsl --update, then wsl --shutdown, then start WSL again",
    ),
    Known(
        "driver",
        r"NVML shared library|libnvidia-ml",
        "nvidia-smi is here, but the driver's own libraries are not",
        "{seen}",
    ),
    Known(
        "driver",
        r"No devices were found",
        "it runs, but finds no GPU that it can use; the system's log says why",
        "sudo dmesg | grep -i nvrm   (mostly: {driver})",
    ),
    Known(
        "GPU",
        r"GPU is lost|Unable to determine the device handle",
        "it failed, or lost its connection",
        "{reboot}   (when it happens again, the GPU, its cable or its power supply needs replacing)",
    ),
    Known("driver", r"no answer in \d+ s", "nvidia-smi hangs: the driver does not answer", "{reboot}"),
)


def recognised(table: tuple[Known, ...], text: str, facts: Facts) -> Finding | None:
    """What a text means, by the first row that knows it."""
    for row in table:
        if match := re.search(row.pattern, text):
            first = next((group for group in match.groups() if group), match[0])
            words = mends.commands(facts, first)
            return wrong(row.name, row.what.format(first, **words), row.mend.format(first, **words))
    return None
