"""Driver, CUDA, cuDNN and GPU: is there one, does torch reach it, and do their versions fit?

Three things are called CUDA: the newest version that the driver supports, the version that torch was compiled for and
brings with it, and a toolkit that may be installed as well and that torch does not use.
"""

import csv
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from kit.doctor.error_patterns import recognised
from kit.doctor.findings import GB, Finding, fine, last_line, note, size, wrong
from kit.doctor.fixes import Fixes
from kit.doctor.resources import read_text

SMI_PLACES = ("/usr/lib/wsl/lib/nvidia-smi", "C:/Windows/System32/nvidia-smi.exe")
SMI_SECONDS = 15
LITTLE_MEMORY = 2 * GB


def nvidia(root: Path = Path("/")) -> SimpleNamespace:
    """What is known about NVIDIA's driver and GPUs without torch. root: where /proc, /sys and /dev are."""
    # Class 03: display controllers, among them 3D controllers without a screen.
    displays = [one for one in (root / "sys/bus/pci/devices").glob("*") if read_text(one / "class").startswith("0x03")]
    vendors = [read_text(one / "vendor") for one in displays]
    module = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", read_text(root / "proc/driver/nvidia/version"))
    program = shutil.which("nvidia-smi") or next((place for place in SMI_PLACES if Path(place).is_file()), "")
    text, error = _run(program) if program else ("", "")
    gpus = processes = ()
    if program and not error:
        gpus = _query(program, "gpu", "driver_version,name,compute_cap")
        processes = _query(program, "compute-apps", "pid,process_name,used_memory,gpu_uuid")
    cuda = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)", text)
    return SimpleNamespace(
        boards=vendors.count("0x10de"),  # GPUs on the PCI bus, whether a driver serves them or not
        amd=vendors.count("0x1002"),
        module=module[1] if module else "",  # the version of the loaded kernel module
        nodes=(root / "dev/nvidia0").exists() or (root / "dev/dxg").exists(),  # through these, programs reach a GPU
        smi=bool(program),
        error=error,
        driver=gpus[0][0] if gpus else "",
        cuda=cuda[1] if cuda else "",  # the newest that the driver supports
        gpus=[SimpleNamespace(name=name, capability=_number(capability)) for _, name, capability in gpus],
        processes=[
            SimpleNamespace(pid=int(pid), name=Path(name).name, memory=int(_number(mebibytes)) << 20, gpu=uuid)
            for pid, name, mebibytes, uuid in processes
        ],
    )


def _run(program: str, *arguments: str) -> tuple[str, str]:
    """What nvidia-smi prints, and how it failed ("" if it did not); it is stopped after SMI_SECONDS."""
    command = [program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=SMI_SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {SMI_SECONDS} s"
    except OSError as error:
        return "", str(error)
    output = (done.stdout + done.stderr).strip()
    failed = done.returncode or "No devices" in output
    return done.stdout, (output or f"exit code {done.returncode}") if failed else ""


def _query(program: str, subject: str, fields: str) -> list[list[str]]:
    """The rows of a query of nvidia-smi; messages among them have another number of fields."""
    text, _ = _run(program, f"--query-{subject}={fields}", "--format=csv,noheader,nounits")
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [row for row in rows if len(row) == len(fields.split(",")) and row[0][:1].isdigit()]


def _number(text: str) -> float:
    """A number of nvidia-smi's; 0 for "[N/A]"."""
    return float(text) if text[:1].isdigit() else 0


def about_gpu(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """Everything about the GPU, or that there is none."""
    nvidia, torch, system = facts.nvidia, facts.torch, facts.system
    # On a Linux without a GPU, a driver that fails is only a leftover.
    leftover = system.name == "Linux" and not system.wsl and nvidia.error
    if not (torch.devices or nvidia.boards or ((nvidia.smi or nvidia.module) and not leftover)):
        if nvidia.amd and not torch.hip:
            what = "an AMD GPU; this torch is not built for it (ROCm), and kit was not tested on one"
            yield note("GPU", what, "to try it, choose ROCm on https://pytorch.org/get-started/locally")
        else:
            command = "nothing is broken; for shorter runs: --arch resnet18 --size 128, or a machine with a GPU"
            yield note("GPU", "none: training uses the processor, which is slower", command)
        return
    if not torch.devices or nvidia.driver:
        driver = _driver(facts, fix)
        yield driver
        if driver.verdict != "fine":
            return
    if torch.devices or torch.failed == "gpu":
        yield from _devices(facts, fix)
    elif torch.cuda_error or ("torch" in torch.done and not (torch.cuda or torch.hip)):
        yield _unreached(facts, fix)
    # CUDA and cuDNN that are installed besides torch's are harmless, unless they are found first.
    if found := system.libraries:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        what = f"leads to {found[0]}{more}: parts of them may be loaded in place of torch's own"
        yield note("libraries", f"{'PATH' if fix.windows else 'LD_LIBRARY_PATH'} {what}", fix.own_libraries)
    if system.toolkits:
        own = f"CUDA {torch.cuda} of its own" if torch.cuda else "no CUDA"
        yield fine("toolkit", f"{', '.join(system.toolkits)}: not used; torch has {own}")


def _driver(facts: SimpleNamespace, fix: Fixes) -> Finding:
    """The driver, as far as it is known without torch."""
    nvidia = facts.nvidia
    if nvidia.error:
        unknown = wrong("driver", f"nvidia-smi fails: {last_line(nvidia.error)}", fix.reboot)
        return recognised(nvidia.error, facts) or unknown
    if not nvidia.smi and facts.system.container and not nvidia.nodes:
        return note("GPU", "this machine has one, but the container was started without it", fix.show_gpu)
    if not nvidia.smi and not nvidia.module:
        return wrong("driver", "there is an NVIDIA GPU and no driver", fix.driver)
    supports = f", supports CUDA up to {nvidia.cuda}" if nvidia.cuda else ""
    return fine("driver", f"NVIDIA {fix.driver_version}{supports}")


def _unreached(facts: SimpleNamespace, fix: Fixes) -> Finding:
    """Why torch does not see a GPU that has a driver."""
    torch, hidden = facts.torch, facts.system.variables.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda and not torch.hip:
        what = f"torch {torch.version} is built for the processor only: the GPU is not used"
        return wrong("torch", what, fix.torch_for_gpu)
    if hidden is not None and hidden.strip() in ("", "-1"):
        what = f"hidden by CUDA_VISIBLE_DEVICES={hidden!r}: training uses the processor"
        return note("GPU", what, fix.unset("CUDA_VISIBLE_DEVICES"))
    if hidden is not None:
        count = max(len(facts.nvidia.gpus), facts.nvidia.boards)
        what = f"CUDA_VISIBLE_DEVICES={hidden} names no GPU of this machine (it has {count}, counted from 0)"
        return wrong("GPU", what, fix.unset("CUDA_VISIBLE_DEVICES"))
    return recognised(torch.cuda_error, facts) or wrong("CUDA", last_line(torch.cuda_error), fix.reboot)


def _devices(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """cuDNN, and each GPU that torch sees: did a convolution run on it?"""
    torch = facts.torch
    if torch.failed == "gpu":
        crash = wrong("GPU", f"the convolution on it failed: {last_line(torch.error)}", fix.cudnn)
        yield recognised(torch.error, facts) or crash
    if torch.cudnn_error:  # torch itself compares the cuDNN that it found with the one that it was compiled for
        yield recognised(torch.cudnn_error, facts) or wrong("cuDNN", last_line(torch.cudnn_error), fix.cudnn)
    elif torch.cudnn:
        major, rest = divmod(torch.cudnn, 10_000 if torch.cudnn >= 90_000 else 1000)  # 8902 is 8.9.2, 91002 9.10.2
        yield fine("cuDNN", f"{major}.{rest // 100}.{rest % 100}, which fits this torch")
    for device in torch.devices:
        title = f"{device.title} ({device.name})"
        if device.capability:
            title += f", {size(device.total)}, compute capability {device.capability}"
        if device.error:
            found = recognised(device.error, facts) or wrong("GPU", last_line(device.error), fix.reboot)
            yield replace(found, what=f"{title}: {found.what}")
        else:
            own = f", CUDA {torch.cuda} of torch's own" if torch.cuda else ""
            free = f", {size(device.free)} free" if device.total else ""
            yield fine("GPU", f"{title}{own}{free}: a convolution ran on it")
            yield from _memory(facts, fix, device)
    if len(torch.devices) > 1:
        many = f"{len(torch.devices)} GPUs do not add up: a network and its batch must fit into one of them"
        yield fine("GPU", f"kit trains on {torch.device}; {many}")


def _memory(facts: SimpleNamespace, fix: Fixes, device: SimpleNamespace) -> Iterator[Finding]:
    """A GPU whose memory other programs hold."""
    if not device.total or device.free >= max(LITTLE_MEMORY, device.total // 2):
        return
    holders = [one for one in facts.nvidia.processes if one.gpu.endswith(device.uuid)]
    names = ", ".join(f"{one.name} ({one.pid}) {size(one.memory)}" for one in holders) or "programs not shown"
    what = f"{device.title} has {size(device.free)} of {size(device.total)} free; held by {names}"
    others = [one.name for one in facts.torch.devices if one.free > max(device.free, LITTLE_MEMORY)]
    command = f"--device {others[0]}   (it has room), or: {fix.free_memory}" if others else fix.free_memory
    yield (wrong if device.free < LITTLE_MEMORY else note)("GPU memory", what, command)
