"""What the NVIDIA driver says, without torch: nvidia-smi, the kernel module, the boards on the bus.

nvidia().driver                                  # '580.95.05'
"""

import re
import shutil
import subprocess
from pathlib import Path

from kit.doctor.facts import Gpu, Nvidia, Process

SECONDS = 15
PLACES = ("/usr/lib/wsl/lib/nvidia-smi", "C:/Windows/System32/nvidia-smi.exe")
PLAIN = "--format=csv,noheader,nounits"
GPUS = ("--query-gpu=index,name,memory.total,memory.used,compute_cap,driver_version,uuid", PLAIN)
PROCESSES = ("--query-compute-apps=pid,process_name,used_memory,gpu_uuid", PLAIN)
NVIDIA, AMD = "0x10de", "0x1002"
MIB = 1 << 20


def nvidia(root: Path = Path("/")) -> Nvidia:
    """Everything about NVIDIA's driver and GPUs that is known without torch. root: where /proc, /sys and /dev lie."""
    vendors = boards(root)
    nodes = (root / "dev/nvidia0").exists() or (root / "dev/dxg").exists()
    facts = {"boards": vendors.count(NVIDIA), "amd": vendors.count(AMD), "module": module(root), "nodes": nodes}
    program = shutil.which("nvidia-smi") or next((place for place in PLACES if Path(place).is_file()), None)
    if program is None:
        return Nvidia(**facts)
    text, error = call(program)
    if error:
        return Nvidia(**facts, smi=True, error=error)
    driver, gpus, uuids = read_gpus(call(program, *GPUS)[0])
    processes = read_processes(call(program, *PROCESSES)[0], uuids)
    return Nvidia(**facts, smi=True, driver=driver, cuda=newest_cuda(text), gpus=gpus, processes=processes)


def boards(root: Path) -> list[str]:
    """The vendors of the graphics boards on the PCI bus."""
    found = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        # Class 03: display controllers, 3D controllers without a screen among them.
        if _text(device / "class").startswith("0x03"):
            found.append(_text(device / "vendor"))
    return found


def module(root: Path) -> str:
    """The version of the kernel module that is loaded, "" where none is."""
    text = _text(root / "proc/driver/nvidia/version")
    version = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return version[1] if version else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def call(program: str, *arguments: str) -> tuple[str, str]:
    """What nvidia-smi prints, and how it failed, "" where it did not; a driver that hangs is left after SECONDS."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer in {SECONDS} s"
    except OSError as error:
        return "", str(error)
    said = (done.stdout + done.stderr).strip()
    return done.stdout, (said or f"exit code {done.returncode}") if done.returncode or "No devices" in said else ""


def newest_cuda(text: str) -> str:
    """The newest CUDA that the driver takes, from the head of nvidia-smi's table."""
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)", text)
    return version[1] if version else ""


def read_gpus(text: str) -> tuple[str, tuple[Gpu, ...], dict[str, int]]:
    """The driver's version, the GPUs, and which index each GPU's long name has."""
    driver, gpus, uuids = "", [], {}
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != 7 or not values[0].isdigit():
            continue
        index, name, total, used, capability, driver, uuid = values
        uuids[uuid] = int(index)
        version = re.fullmatch(r"(\d+)\.(\d+)", capability)
        pair = (int(version[1]), int(version[2])) if version else None
        gpus.append(Gpu(int(index), name, _bytes(total), _bytes(used), pair))
    return driver, tuple(gpus), uuids


def read_processes(text: str, uuids: dict[str, int]) -> tuple[Process, ...]:
    """The processes that compute on a GPU; in a container their names may be hidden."""
    found = []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == 4 and values[0].isdigit():
            found.append(Process(int(values[0]), Path(values[1]).name, _bytes(values[2]), uuids.get(values[3], 0)))
    return tuple(found)


def _bytes(mebibytes: str) -> int:
    """A number of MiB as bytes; "[N/A]" is 0."""
    return int(mebibytes) * MIB if mebibytes.isdigit() else 0
