"""Where weights lie on this machine: the folder that KIT_WEIGHTS names, and the cache of torch.hub.

KIT_WEIGHTS=/data/weights kit fine-tune photos   # looked into before any cache, and before the network

The folder holds files by the names that they have where they come from: `resnet18-f37072fd.pth` (torchvision),
`resnet18.a1_in1k.safetensors` or a folder `resnet18.a1_in1k/` with `model.safetensors` (timm), and the same below the
owner's name, `timm/resnet18.a1_in1k/` (the hub's ID, as `hf download ID --local-dir FOLDER/ID` writes it).
"""

import os
from pathlib import Path

from kit.errors import WeightsError

VARIABLE = "KIT_WEIGHTS"


def weights_folder() -> Path | None:
    """The folder that KIT_WEIGHTS names, or None. Raises `WeightsError` where it names something else."""
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser().absolute()
    if not folder.is_dir():
        raise WeightsError(f"{VARIABLE}={value} is no folder", fix=f"make it, or unset {VARIABLE}")
    return folder


def in_weights_folder(name: str) -> Path | None:
    """The file or folder of that name in the folder that KIT_WEIGHTS names; None where there is none."""
    folder = weights_folder()
    return folder / name if folder and (folder / name).exists() else None


def find_path(text: str) -> Path:
    """The path that a person means: as it is, or else in the folder that KIT_WEIGHTS names, where it is there."""
    path = Path(text).expanduser()
    return path if path.exists() else in_weights_folder(text) or path


def where_to_put(name: str) -> str:
    """Where a person may put a file by hand, in words: "put it at /data/weights/resnet18-f37072fd.pth"."""
    folder = weights_folder()
    return f"put it at {folder / name}" if folder else f"put it at FOLDER/{name} and set {VARIABLE}=FOLDER"


def torch_cache() -> Path:
    """Where torch.hub, and with it torchvision, keeps files."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def listed_sha256(path: Path) -> str | None:
    """The SHA-256 that SHA256SUMS beside a file gives for it, as sha256sum writes it; None without one."""
    sums = path.with_name("SHA256SUMS")
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
    return next((line.split()[0] for line in lines if line.split()[1:] == [path.name]), None)
