"""Error texts that torch, CUDA, cuDNN and nvidia-smi are known for, what each means, and what fixes it.

recognised("libcudnn.so.9: cannot open shared object file", facts).fix
"""

import re
from dataclasses import replace
from types import SimpleNamespace

from kit.doctor.findings import Finding, wrong
from kit.doctor.fixes import Fixes

# A pattern, and the finding that it means; the first that matches counts. {0} is the pattern's first group, other
# braces are attributes of `Fixes` and of the facts.
PATTERNS = {
    # What CUDA and nvidia-smi say
    r"driver on your system is too old|driver version is insufficient": wrong(
        "driver",
        "NVIDIA {fix.driver_version} (CUDA up to {facts.nvidia.cuda}) is too old for torch's CUDA {facts.torch.cuda}",
        "{fix.driver_or_build}",
    ),
    r"Driver/library version mismatch|[Ee]rror 803|unsupported display driver / cuda driver combination": wrong(
        "driver", "it was updated, and the computer was not restarted since", "{fix.reboot}"
    ),
    r"[Ee]rror 804|forward compatibility was attempted": wrong(
        "driver",
        "a libcuda of a cuda-compat package is found before the driver's own, and works only on data-centre GPUs",
        "{fix.own_libraries}   (in a container: sudo apt remove 'cuda-compat-*')",
    ),
    r"[Ee]rror 802|system not yet initialized": wrong(
        "driver",
        "GPUs that are connected by NVSwitch need the fabric manager, in the driver's version {fix.driver_version}",
        "sudo systemctl restart nvidia-fabricmanager",
    ),
    r"CUDA unknown error|[Ee]rror 999": wrong(
        "driver",
        "the driver lost the GPU, as happens after the computer slept",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm   (else: {fix.reboot})",
    ),
    r"couldn't communicate with the NVIDIA driver": wrong(
        "driver",
        "its kernel module is not loaded, as happens after the kernel was updated",
        "sudo modprobe nvidia   (if that fails: {fix.driver})",
    ),
    r"blocked by the operating system": wrong(
        "driver", "Windows keeps WSL from the GPU", "in Windows: wsl --update; wsl --shutdown; then start WSL again"
    ),
    r"NVML shared library|libnvidia-ml": wrong(
        "driver", "nvidia-smi is installed, but the driver's libraries are not", "{fix.show_gpu}"
    ),
    r"No devices were found": wrong(
        "driver", "it finds no GPU that it can use", "sudo dmesg | grep -i nvrm   (says why; mostly: {fix.driver})"
    ),
    r"no answer in \S+ s": wrong("driver", "nvidia-smi hangs: the driver does not answer", "{fix.reboot}"),
    r"GPU is lost|fallen off the bus|Unable to determine the device handle|uncorrectable ECC": wrong(
        "GPU", "it failed, or lost its connection", "{fix.reboot}   (if it happens again: check its cable and power)"
    ),
    r"busy or unavailable": wrong(
        "GPU", "another program holds it exclusively", "sudo nvidia-smi --compute-mode=DEFAULT   (or end that program)"
    ),
    r"No CUDA GPUs are available|no CUDA-capable device|Found no NVIDIA driver": wrong(
        "GPU", "torch sees none, though there is one", "{fix.show_gpu}"
    ),
    r"out of memory": wrong("GPU memory", "other programs hold the GPU's memory", "{fix.free_memory}"),
    r"no kernel image is available|invalid device function|is not compatible with the current PyTorch": wrong(
        "GPU", "torch was compiled for other GPUs ({fix.architectures})", "{fix.torch_for_gpu}"
    ),
    # What cuDNN says
    r"(cuDNN version \d+) is not compatible with devices with SM": wrong(
        "cuDNN", "{0} does not support this GPU any more", "{fix.old_torch}"
    ),
    r"cuDNN version (?:incompatibility|mismatch): PyTorch was compiled\s+against (.+?) but ": wrong(
        "cuDNN", "torch was compiled for cuDNN {0} and found another first", "{fix.cudnn}"
    ),
    r"(CU(?:DNN|BLAS)_STATUS_(?:NOT_INITIALIZED|ALLOC_FAILED|INTERNAL_ERROR))": wrong(
        "cuDNN",
        "it does not start ({0}): the GPU's memory is full, or a cuDNN of another version was found first",
        "nvidia-smi   (end what fills the memory; else: {fix.cudnn})",
    ),
    r"Unable to load any of \{(\w+)|Cannot load symbol (cudnn\w+)|(CUDNN_STATUS_SUBLIBRARY\w*)|"
    r"Could not (?:load|locate) (?:library )?(\S*cudnn\S*)|"
    r"(libcudnn[\w.]*|cudnn\w*\.dll)[^\n]*(?:cannot open|not found)": wrong(
        "cuDNN",
        "{0} is missing or of another version; torch brings its own, no cuDNN from NVIDIA or conda is needed",
        "{fix.cudnn}",
    ),
    # What imports say
    r"operator torchvision::nms does not|Couldn't load custom C\+\+ ops|'torchvision'.* no attribute 'nms'": wrong(
        "torchvision", "it was compiled for another version or build of torch", "{fix.same_torch}"
    ),
    r"undefined symbol: iJIT_NotifyEvent": wrong(
        "torch", "conda's MKL of 2024.1 or later does not fit this torch", 'conda install "mkl<2024.1"'
    ),
    r"(undefined symbol: \S+)": wrong("torch", "{0}: a library of another version was loaded", "{fix.libraries}"),
    r"(lib(?:cu|nv|nccl)[\w.]*)[^\n]*cannot open|Could not find '(\w+\.dll)'|Error loading \"\S*?(cu\w+\.dll)": wrong(
        "CUDA", "{0} is missing; torch brings CUDA with it, no toolkit from NVIDIA is needed", "{fix.library}"
    ),
    r"version `((?:GLIBCXX|CXXABI|GLIBC)_[\d.]+)' not found": wrong(
        "system",
        "it is too old for torch: its C or C++ library has no {0}",
        "use a Linux of 2019 or later, or: docker run -it ubuntu:22.04   "
        "(where GLIBCXX is missing in conda: conda install -c conda-forge libstdcxx-ng)",
    ),
    r"(\S+): (?:invalid ELF header|file too short|wrong ELF class)|WinError 193|(incompatible architecture)": wrong(
        "torch", "a library is damaged, or made for another processor than Python ({0})", "{fix.libraries}"
    ),
    r"\[?WinError (?:126|127|1114)\]?|DLL load failed": wrong(
        "torch", "a DLL does not load, mostly of Visual C++'s runtime", "winget install Microsoft.VCRedist.2015+.x64"
    ),
    r"_ARRAY_API not found|compiled using NumPy 1|numpy\.dtype size changed|numpy\.core\.multiarray failed": wrong(
        "numpy", "a package was compiled for another NumPy than the installed one", "{fix.numpy}"
    ),
    r"(\S+): cannot allocate memory in static TLS block": wrong(
        "torch", "{0} is loaded too late to get its place in memory", "export LD_PRELOAD={0}"
    ),
    r"partially initialized module '(\w+)'": wrong(
        "imports",
        "a file {0}.py is imported in place of the package {0}",
        "rename it, and remove __pycache__ beside it",
    ),
    r"oneMKL FATAL ERROR: Cannot load": wrong(
        "torch", "MKL does not find its parts, or the current folder was removed", "cd ~   (else: {fix.libraries})"
    ),
    r"OMP: Error #15": wrong(
        "OpenMP", "two copies of Intel's OpenMP in one process, conda's and pip's", "{fix.new_environment}"
    ),
    r"Cannot allocate memory|\bMemoryError|WinError 1455|paging file is too small": wrong(
        "memory", "too little to load torch", "end other programs, or give this machine or its container 8 GB"
    ),
    r"failed to map segment from shared object": wrong(
        "torch", "its disk does not allow programs (noexec)", "{fix.new_environment}   (in a folder on another disk)"
    ),
    r"(cannot import name '\w+' from '[\w.]+')|(module '[\w.]+' has no attribute '\w+')": wrong(
        "packages", "{0}: packages of versions that do not fit each other", "{fix.upgrade}"
    ),
}


def recognised(text: str, facts: SimpleNamespace) -> Finding | None:
    """What an error text means; None where no pattern matches."""
    for pattern, finding in PATTERNS.items():
        if match := re.search(pattern, text):
            first = next((group for group in match.groups() if group), match[0])
            fix = Fixes(facts, library=first)
            what, command = (template.format(first, fix=fix, facts=facts) for template in (finding.what, finding.fix))
            return replace(finding, what=what, fix=command)
    return None
