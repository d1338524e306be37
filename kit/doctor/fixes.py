"""The commands that fix what is wrong: for this interpreter, system and driver, to be copied as they are.

Fixes(facts).install("numpy>=2.0")               # 'python -m pip install "numpy>=2.0"'
"""

import re
from types import SimpleNamespace

# The oldest driver for each CUDA (NVIDIA: CUDA Compatibility, minor version compatibility, table 1).
OLDEST_DRIVER = {10: 440, 11: 450, 12: 525, 13: 580}
# pytorch.org's builds: the oldest driver, and the oldest and newest compute capability. cu126 is the last for GPUs
# before Turing and for drivers before 580; by PyTorch's plan (CUDA support matrix) it ends with torch 2.14.
BUILDS = {"cu130": (580, 7.5, 99.0), "cu126": (525, 5.0, 9.9)}
INDEX = "https://download.pytorch.org/whl"
DRIVERS = "https://www.nvidia.com/drivers"


def _quoted(text: str) -> str:
    """A path or a requirement as one word of a command."""
    return f'"{text}"' if any(character in text for character in " <>=!~&;()'[]$") else text


def _major(version: str | None) -> int:
    """580 of "580.95.05"; 0 where the version is not known."""
    first = (version or "").partition(".")[0]
    return int(first) if first.isdigit() else 0


class Fixes:
    """Commands for the machine that `facts` describe; `kit.doctor.error_patterns` names its attributes in braces.

    library: the file that an error text is about.
    """

    def __init__(self, facts: SimpleNamespace, library: str = ""):
        self.facts, self.system = facts, facts.system
        self.packages = {package.name: package for package in reversed(facts.packages)}  # an import takes the first
        self.torch = self.packages.get("torch")
        self.windows = self.system.name == "Windows"  # commands are then for PowerShell
        self.then = "; " if self.windows else " && "  # PowerShell 5 has no &&
        executable = _quoted(facts.python.executable)
        self.python = f"& {executable}" if self.windows and executable.startswith('"') else executable
        self.architectures = " ".join(facts.torch.architectures)
        self.driver_version = facts.nvidia.driver or facts.nvidia.module
        self.driver = self.driver_from(OLDEST_DRIVER.get(_major(facts.torch.cuda), 580))

        self.upgrade = self.install("--upgrade", "torch", "torchvision", "timm", "fastai", "fastcore", "gradio")
        self.numpy = self.install("--upgrade", "numpy", "pandas", "scipy", "scikit-learn", "torch", "torchvision")
        tag = self.torch.version.partition("+")[2] if self.torch else ""
        self.same_torch = self.torch_build(tag if tag.startswith(("cu1", "cpu")) else "")
        self.old_torch = self.torch_build("cu126")
        self.libraries = self.own_libraries if self.system.libraries else self.same_torch
        self.library = self._package_of(library)
        self.cudnn = self._package_of("cudnn")
        if self.system.libraries:
            self.cudnn = f"{self.own_libraries}; if that is not it: {self.cudnn}"

    def pip(self, action: str) -> str:
        """pip for this interpreter ("install X", "uninstall -y X"); without pip: uv, or pip after installing pip."""
        if self.facts.python.pip == "uv":
            return f"uv pip {action.replace(' -y', '')} --python {_quoted(self.facts.python.executable)}"
        first = "" if self.facts.python.pip else f"{self.python} -m ensurepip{self.then}"
        return f"{first}{self.python} -m pip {action}"

    def install(self, *requirements: str) -> str:
        """Install packages in these versions."""
        return self.pip(" ".join(["install", *map(_quoted, requirements)]))

    def reinstall(self, *requirements: str) -> str:
        """Install packages again, over damaged ones."""
        return self.install("--force-reinstall", "--no-cache-dir", *requirements)

    def torch_build(self, tag: str) -> str:
        """torch and torchvision out and in again in one command, so that they fit; tag: pytorch.org's, like "cu126"."""
        index = f" --index-url {INDEX}/{tag}" if tag else ""
        return self.pip("uninstall -y torch torchvision") + self.then + self.pip(f"install torch torchvision{index}")

    def _package_of(self, library: str) -> str:
        """Install the package of NVIDIA's that has a library again; torch itself where there is no such package."""
        stem = re.sub(r"^lib|[\d_.-].*", "", library).lower().replace("cudart", "cuda-runtime")
        owners = [one for name, one in self.packages.items() if name.startswith("nvidia-") and stem and stem in name]
        owner = min(owners, key=lambda one: len(one.name), default=None)
        return self.reinstall("--no-deps", f"{owner.name}=={owner.version}") if owner else self.same_torch

    @property
    def fitting_build(self) -> str:
        """pytorch.org's newest build that this driver and all its GPUs take; "" where the driver must be newer."""
        gpus = [*self.facts.nvidia.gpus, *self.facts.torch.devices]
        driver = _major(self.facts.nvidia.driver) or 999
        for tag, (oldest, low, high) in BUILDS.items():
            if driver >= oldest and all(low <= gpu.capability <= high for gpu in gpus if gpu.capability):
                return tag
        return ""

    @property
    def driver_or_build(self) -> str:
        """A newer driver; or, where there is one, a build of torch that this driver supports."""
        build = self.fitting_build
        return self.driver + (f"   (or keep the driver: {self.torch_build(build)})" if build else "")

    @property
    def torch_for_gpu(self) -> str:
        """The build of torch that runs on the GPUs; no build does on those before compute capability 5.0."""
        if any(0 < device.capability < 5 for device in self.facts.torch.devices):
            no_gpu = self.set("CUDA_VISIBLE_DEVICES", "-1")
            return f"no build of torch supports this GPU; train on the processor: {no_gpu}"
        build = self.fitting_build
        return self.torch_build(build) if build else f"first {self.driver_from(580)}, then {self.torch_build('cu130')}"

    @property
    def new_environment(self) -> str:
        """A new environment with kit and nothing else in it."""
        kit = f"-e {_quoted(self.system.source)}" if self.system.source else "PATH_OF_KITS_WHEEL"
        folder, python = "~/kit-env", "~/kit-env/bin/python"
        if self.windows:
            folder, python = "$HOME\\kit-env", "& $HOME\\kit-env\\Scripts\\python"
        return f"{self.python} -m venv {folder}{self.then}{python} -m pip install {kit}"

    def unset(self, variable: str) -> str:
        """Remove an environment variable, here and where it is set for good."""
        if self.windows:
            return f'Remove-Item Env:{variable}; [Environment]::SetEnvironmentVariable("{variable}", $null, "User")'
        return f"unset {variable}   (for good: remove the line that sets it, in ~/.bashrc or ~/.profile)"

    def set(self, variable: str, value: str) -> str:
        """Set an environment variable."""
        return f'$env:{variable} = "{value}"' if self.windows else f"export {variable}={_quoted(value)}"

    @property
    def own_libraries(self) -> str:
        """Let torch find its own CUDA and cuDNN first."""
        if not self.windows:
            return self.unset("LD_LIBRARY_PATH")
        folders = sorted({path.rpartition("\\")[0] for path in self.system.libraries})
        return f"remove {' and '.join(folders) or 'folders of CUDA'} from PATH, then open a new terminal"

    def driver_from(self, oldest: int) -> str:
        """Install a driver that is new enough; WSL takes Windows' driver, a container its host's."""
        newer = f"install NVIDIA's driver {oldest} or newer"
        if self.system.wsl:
            return f"in Windows, {newer} ({DRIVERS}), then: wsl --shutdown; install no driver inside WSL"
        if self.system.container:
            return f"on the host (a container uses the host's driver): {newer}"
        if self.system.distribution == "ubuntu":
            return f"sudo ubuntu-drivers install nvidia:{oldest} && sudo reboot"
        if self.system.distribution == "debian":
            return f"sudo apt install nvidia-driver firmware-misc-nonfree && sudo reboot   ({oldest} or newer)"
        return f"{newer} ({DRIVERS}), then restart"

    @property
    def show_gpu(self) -> str:
        """Make the GPU visible: a container must be started with it; elsewhere the driver is installed again."""
        start = "start the container with its GPUs: docker run --gpus all --shm-size 2g ..."
        return f"{start}   (the host needs nvidia-container-toolkit)" if self.system.container else self.driver

    @property
    def reboot(self) -> str:
        """Load the driver again."""
        if self.system.wsl:
            return "in Windows: wsl --shutdown, then start WSL again"
        if self.system.container:
            return "restart the host, then the container"
        return "Restart-Computer" if self.windows else "sudo reboot"

    @property
    def free_memory(self) -> str:
        """End the programs that hold a GPU's memory."""
        numbers = [process.pid for process in self.facts.nvidia.processes]
        if not numbers:
            return "nvidia-smi   (see which programs those are, and end them; or wait)"
        kill = f"Stop-Process {', '.join(map(str, numbers))}" if self.windows else f"kill {' '.join(map(str, numbers))}"
        return f"{kill}   (if these programs are yours; or wait)"
