"""The commands that mend: for this interpreter, this system, this driver, to be copied as they are.

install(facts, "numpy>=2.0")                     # 'python -m pip install "numpy>=2.0"'
"""

import re

from kit.doctor.facts import Facts

# The oldest driver for each CUDA (NVIDIA: CUDA Compatibility, minor version compatibility, table 1).
OLDEST_DRIVER = {10: 440, 11: 450, 12: 525, 13: 580}
# pytorch.org's builds: the oldest driver, and the oldest and newest compute capability. cu126 is the last for GPUs
# before Turing and for drivers before 580; by PyTorch's plan (CUDA support matrix) it ends with torch 2.14.
BUILDS = {"cu130": (580, (7, 5), (99, 9)), "cu126": (525, (5, 0), (9, 9))}
INDEX = "https://download.pytorch.org/whl"


def windows(facts: Facts) -> bool:
    """Whether commands are for PowerShell."""
    return facts.system.name == "Windows"


def then(facts: Facts) -> str:
    """What stands between two commands; PowerShell 5 has no &&."""
    return "; " if windows(facts) else " && "


def quoted(facts: Facts, text: str) -> str:
    """A path or a requirement as one word of a command."""
    if not any(character in text for character in " <>=!~&;()'[]$"):
        return text
    return f'"{text}"'


def python(facts: Facts) -> str:
    """This interpreter, as the first word of a command."""
    word = quoted(facts, facts.python.executable)
    return f"& {word}" if windows(facts) and word.startswith('"') else word


def pip(facts: Facts, action: str) -> str:
    """pip for this interpreter ("install X", "uninstall -y X"); where it has none, uv, or pip after pip itself."""
    if facts.python.pip == "uv":
        return f"uv pip {action.replace(' -y', '')} --python {quoted(facts, facts.python.executable)}"
    first = "" if facts.python.pip else f"{python(facts)} -m ensurepip{then(facts)}"
    return f"{first}{python(facts)} -m pip {action}"


def install(facts: Facts, *requirements: str) -> str:
    """Install packages in these versions."""
    return pip(facts, f"install {' '.join(quoted(facts, requirement) for requirement in requirements)}")


def again(facts: Facts, *requirements: str) -> str:
    """Install packages anew, whole, over damaged ones."""
    return install(facts, "--force-reinstall", "--no-cache-dir", *requirements)


def both(facts: Facts, build: str = "") -> str:
    """torch and torchvision out and in again in one command, so that they fit; build: pytorch.org's, like "cu126"."""
    index = f" --index-url {INDEX}/{build}" if build else ""
    out = pip(facts, "uninstall -y torch torchvision")
    return f"{out}{then(facts)}{pip(facts, 'install torch torchvision' + index)}"


def build_tag(facts: Facts) -> str:
    """Which of pytorch.org's builds is installed, by the version ("cu126", "cpu"); "" for the registry's own."""
    package = facts.package("torch")
    local = package.version.partition("+")[2] if package else ""
    return local if local.startswith(("cu1", "cpu")) else ""


def branch(driver: str) -> int:
    """A driver's branch: 580 of "580.95.05"; 0 where it is not known."""
    first = driver.partition(".")[0]
    return int(first) if first.isdigit() else 0


def build_for(facts: Facts) -> str:
    """pytorch.org's newest build that this driver and all its GPUs take; "" where the driver must be newer first."""
    capabilities = [gpu.capability for gpu in facts.nvidia.gpus if gpu.capability]
    capabilities += [device.capability for device in facts.torch.devices if device.capability]
    known = branch(facts.nvidia.driver) or 999
    for tag, (oldest, low, high) in BUILDS.items():
        if all(low <= capability <= high for capability in capabilities) and known >= oldest:
            return tag
    return ""


def fresh(facts: Facts, interpreter: str = "") -> str:
    """An environment of its own, with kit and nothing else in it."""
    what = f"-e {quoted(facts, facts.system.source)}" if facts.system.source else "PATH_OF_KITS_WHEEL"
    start = interpreter or python(facts)
    if windows(facts):
        return f"{start} -m venv $HOME\\kit-env; & $HOME\\kit-env\\Scripts\\python -m pip install {what}"
    return f"{start} -m venv ~/kit-env && ~/kit-env/bin/python -m pip install {what}"


def unset(facts: Facts, variable: str) -> str:
    """Take a variable away, here and where it is set for good."""
    if windows(facts):
        return f'Remove-Item Env:{variable}; [Environment]::SetEnvironmentVariable("{variable}", $null, "User")'
    return f"unset {variable}   (for good: remove the line that sets it, in ~/.bashrc or ~/.profile)"


def put(facts: Facts, variable: str, value: str) -> str:
    """Give a variable a value."""
    return f'$env:{variable} = "{value}"' if windows(facts) else f"export {variable}={quoted(facts, value)}"


def libraries_away(facts: Facts) -> str:
    """Let torch find its own CUDA and cuDNN first."""
    if windows(facts):
        folders = sorted({path.rpartition("\\")[0] for path in facts.system.libraries})
        away = " and ".join(f"$_ -ne '{folder}'" for folder in folders) or "$_ -notlike '*CUDA*'"
        return f"$env:PATH = ($env:PATH -split ';' | Where-Object {{ {away} }}) -join ';'"
    return unset(facts, "LD_LIBRARY_PATH")


def driver(facts: Facts, oldest: int) -> str:
    """Install a driver that is new enough; WSL takes Windows' driver, a container its host's."""
    if facts.system.wsl:
        text = f"in Windows, install NVIDIA's driver {oldest} or newer (https://www.nvidia.com/drivers)"
        return f"{text}, then: wsl --shutdown; install no driver inside WSL"
    if facts.system.container:
        return f"on the host (a container uses the host's driver): install NVIDIA's driver {oldest} or newer"
    if facts.system.distribution == "ubuntu":
        return f"sudo ubuntu-drivers install nvidia:{oldest} && sudo reboot"
    if facts.system.distribution == "debian":
        return f"sudo apt install nvidia-driver firmware-misc-nonfree && sudo reboot   ({oldest} or newer)"
    return f"install NVIDIA's driver {oldest} or newer (https://www.nvidia.com/drivers), then restart"


def reboot(facts: Facts) -> str:
    """Load the driver anew."""
    if facts.system.wsl:
        return "in Windows: wsl --shutdown, then start WSL again"
    if facts.system.container:
        return "restart the host, then the container"
    return "Restart-Computer" if windows(facts) else "sudo reboot"


def commands(facts: Facts, library: str = "") -> dict[str, str]:
    """The words of `kit.doctor.known`, for this machine; library: the file that the error was about."""
    away, torch = libraries_away(facts), facts.torch
    anew = both(facts, build_tag(facts))
    oldest = OLDEST_DRIVER.get(branch(torch.cuda or ""), 580)
    build = build_for(facts)
    return {
        "again": again(facts, "torch", "torchvision"),
        "architectures": " ".join(torch.architectures),
        "away": away,
        "both": anew,
        "build": both(facts, build) if build else driver(facts, oldest),
        "busy": busy(facts),
        "crash": away if facts.system.libraries else again(facts, "torch", "torchvision"),
        "cuda": torch.cuda or "",
        "cudnn": f"{away}; if that is not it: {cudnn(facts)}" if facts.system.libraries else cudnn(facts),
        "driver": driver(facts, oldest),
        "driver_version": facts.nvidia.driver or facts.nvidia.module,
        "fresh": fresh(facts),
        "libraries": away if facts.system.libraries else anew,
        "numpy": install(facts, "--upgrade", "numpy", "pandas", "scipy", "scikit-learn", "torch", "torchvision"),
        "old_build": both(facts, "cu126"),
        "or_build": f"   (or keep the driver: {both(facts, build)})" if build else "",
        "owner": owner(facts, library),
        "preload": "export LD_PRELOAD=",
        "reboot": reboot(facts),
        "seen": seen(facts),
        "upgrade": install(facts, "--upgrade", "torch", "torchvision", "timm", "fastai", "fastcore", "gradio"),
    }


def cudnn(facts: Facts) -> str:
    """Bring back the cuDNN that torch's own metadata name; where it is part of torch, torch."""
    torch = facts.package("torch")
    wanted = next((text for text in (torch.requires if torch else ()) if text.startswith("nvidia-cudnn")), "")
    return again(facts, "--no-deps", wanted) if wanted else both(facts, build_tag(facts))


def owner(facts: Facts, library: str) -> str:
    """Bring back the package that a library of CUDA's is from; pip alone would believe that it is there."""
    stem = re.sub(r"^lib|[\d_.-].*", "", library).lower()
    stem = {"cudart": "cuda-runtime"}.get(stem, stem)
    owners = [one for one in facts.packages if one.name.startswith("nvidia-") and stem and stem in one.name]
    for package in sorted(owners, key=lambda package: len(package.name)):
        return again(facts, "--no-deps", f"{package.name}=={package.version}")
    return again(facts, "torch", "torchvision")


def seen(facts: Facts) -> str:
    """Give torch a GPU that is there: in a container, the container's start must name it."""
    if facts.system.container:
        start = "docker run --gpus all --shm-size 2g ..."
        return f"start the container with its GPUs: {start}   (the host needs nvidia-container-toolkit)"
    return driver(facts, OLDEST_DRIVER[13])


def busy(facts: Facts) -> str:
    """End what fills a GPU's memory; what fills most comes first."""
    mine = sorted(facts.nvidia.processes, key=lambda process: -process.memory)
    if not mine:
        return "nvidia-smi   (see which programs those are, and end them; or wait)"
    numbers = " ".join(str(process.pid) for process in mine)
    kill = f"taskkill /PID {mine[0].pid}" if windows(facts) else f"kill {numbers}"
    return f"{kill}   (if these programs are yours; or wait)"
