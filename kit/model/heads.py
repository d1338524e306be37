"""The head of a network: a linear layer or fastai's head; and for regression the range of its answers.

network = with_head(body, 2, kind="linear")

A linear head is average pooling and one linear layer: it can be trained from features in seconds. fastai's head is
average and maximum pooling and two linear layers with batch norm and dropout: it is trained on batches of images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from fastai.vision.all import AdaptiveConcatPool2d, Flatten
from fastai.vision.learner import add_head
from torch import Tensor, nn

from kit.errors import ArchitectureError
from kit.manifest import HEADS
from kit.model.architectures import Body, build_network, cut_body, find_architecture
from kit.recipe import Recipe
from kit.tasks.training import training_of

LINEAR, FASTAI = HEADS
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "max and average pooling": AdaptiveConcatPool2d,
    "average pooling": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten,
    "linear": nn.Linear,
    "batch norm": nn.BatchNorm1d,
    "dropout": nn.Dropout,
    "relu": nn.ReLU,
}
"""The layers of a head that a bundle describes one by one."""


Head: TypeAlias = str | list[list[Any]]


class Range(nn.Module):
    """The last layer of regression: low + (high - low) sigmoid(x), a low and a high for each target.

    Like fastai's `SigmoidRange`, which has one range for all targets. Without `bounded` the sigmoid is left out: x is
    scaled in the same way, but answers have no limits. low, high: in the units of each target.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], bounded: bool = True):
        super().__init__()
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32))
        self.bounded = bounded

    def forward(self, x: Tensor) -> Tensor:
        """(n, targets) -> (n, targets), in the units of each target."""
        return self.low + (self.high - self.low) * (x.sigmoid() if self.bounded else x)

    def to_json(self) -> dict[str, Any]:
        """The range as plain JSON values."""
        return {"low": self.low.tolist(), "high": self.high.tolist(), "bounded": self.bounded}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Range":
        """The range that `to_json` wrote."""
        return cls(values["low"], values["high"], values["bounded"])


def range_of(recipe: Recipe, labels: Sequence[str]) -> Range | None:
    """The range of regression's numbers, from the recipe or the labels of the training images; None for classes."""
    ends = training_of(recipe.task).ends(labels, recipe.limits())
    return Range(*ends, bounded=recipe.y_range != "none") if ends else None


def with_head(body: Body, outputs: int, output_range: Range | None = None, kind: Head = FASTAI) -> nn.Module:
    """Body and head as one module of two parts.

    outputs: the number of classes or targets. output_range: of regression, the head's last layer. kind: "linear",
    "fastai", or a list of layers, each a name in `LAYERS` and its arguments.
    """
    if kind == FASTAI:
        network = add_head(body.module, body.features, outputs, pool=not body.pooled)
    elif kind != LINEAR:
        network = nn.Sequential(body.module, nn.Sequential(*map(_layer, kind)))
    else:
        pooling = [] if body.pooled else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        network = nn.Sequential(body.module, nn.Sequential(*pooling, nn.Linear(body.features, outputs)))
    if output_range is not None:
        network[1].append(output_range)
    return network


def _layer(described: Sequence[Any]) -> nn.Module:
    """A layer from its name and arguments. Raises `ArchitectureError`."""
    name, *values = described
    try:
        return LAYERS[name](*values)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArchitectureError(f"no layer of a head: {described}", fix=f"one of {', '.join(LAYERS)}") from error


def described(head: nn.Module) -> list[list[Any]]:
    """The layers of a head, each as its name in `LAYERS` and its arguments. Raises `ArchitectureError` for others."""
    match head:
        case nn.Sequential() if type(head).forward is nn.Sequential.forward:
            return [layer for part in head for layer in described(part)]
        case AdaptiveConcatPool2d() if head.size == 1:
            return [["max and average pooling"]]
        case nn.AdaptiveAvgPool2d() if head.output_size in (1, (1, 1)):
            return [["average pooling"]]
        case nn.Flatten() | Flatten():
            return [["flatten"]]
        case nn.Linear():
            return [["linear", head.in_features, head.out_features, int(head.bias is not None)]]
        case nn.BatchNorm1d():
            return [["batch norm", head.num_features, head.eps]]
        case nn.Dropout():
            return [["dropout", head.p]]
        case nn.ReLU():
            return [["relu"]]
        case _:
            fix = f"only heads of these layers can be saved: {', '.join(LAYERS)}"
            raise ArchitectureError(f"its head has a layer {type(head).__name__}", fix=fix)


def split_head(head: nn.Sequential) -> tuple[list[nn.Module], list[nn.Module]]:
    """The pooling layers of a head, if it has any, and the layers after them, whose input are the features."""
    layers, pooling = list(head), 2 if isinstance(head[0], AdaptiveConcatPool2d | nn.AdaptiveAvgPool2d) else 0
    return layers[:pooling], layers[pooling:]


def featurizer(network: nn.Sequential) -> nn.Sequential:
    """Body and pooling: images (n, 3, h, w) to features (n, f). The modules are the network's own."""
    return nn.Sequential(network[0], *split_head(network[1])[0])


def classifier(network: nn.Sequential) -> nn.Sequential:
    """The layers after the features: (n, f) to (n, outputs). The modules are the network's own."""
    return nn.Sequential(*split_head(network[1])[1])


def empty_network(
    name: str, outputs: int, size: int, output_range: Range | None = None, kind: Head = FASTAI
) -> nn.Module:
    """Body and head with random weights, for the weights of a bundle."""
    architecture = find_architecture(name)
    return with_head(cut_body(build_network(architecture), architecture, size), outputs, output_range, kind)
