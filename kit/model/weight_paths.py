"""Paths of weights on this machine: the folder that KIT_WEIGHTS names, and the cache of torch.hub.

KIT_WEIGHTS=/data/weights kit fine-tune photos   # searched before any cache, and before the network

Files in the folder keep their original names: `resnet18-f37072fd.pth` (torchvision), `resnet18.a1_in1k.safetensors` or
a folder `resnet18.a1_in1k/` with `model.safetensors` (timm), or a folder named by the hub ID, `timm/resnet18.a1_in1k/`,
as `hf download ID --local-dir FOLDER/ID` writes it.
"""

import os
from pathlib import Path

from kit.errors import WeightsError

VARIABLE = "KIT_WEIGHTS"


def weights_folder() -> Path | None:
    """The folder that KIT_WEIGHTS names, or None. Raises `WeightsError` where it is not a folder."""
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
    """`text` as a path, or the path of that name in the folder that KIT_WEIGHTS names, where only that exists."""
    path = Path(text).expanduser()
    return path if path.exists() else in_weights_folder(text) or path


def where_to_put(name: str) -> str:
    """Where to put a file by hand, for messages: "put it at /data/weights/resnet18-f37072fd.pth"."""
    folder = weights_folder()
    return f"put it at {folder / name}" if folder else f"put it at FOLDER/{name} and set {VARIABLE}=FOLDER"


def torch_cache() -> Path:
    """The folder where torch.hub and torchvision cache files."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def listed_sha256(path: Path) -> str | None:
    """The SHA-256 of a file according to SHA256SUMS in its folder; None where that has no line for it."""
    sums = path.with_name("SHA256SUMS")
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
    return next((line.split()[0] for line in lines if line.split()[1:] == [path.name]), None)
