"""What stands behind the body: a linear head, or fastai's; and for regression the range in which it answers.

network = with_head(body, 2, kind="linear")

A linear head averages each feature map and has one linear layer: it is learned from features in seconds. fastai's head
pools in two ways and has two linear layers with batch norm and dropout: it is learned epoch by epoch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fastai.vision.all import AdaptiveConcatPool2d
from fastai.vision.learner import add_head
from torch import Tensor, nn

from kit.manifest import HEADS
from kit.model.architectures import Body, build_network, cut_body, find_architecture
from kit.recipe import Recipe
from kit.task import numbers_of

MARGIN = 0.1
LINEAR, FASTAI = HEADS


class Range(nn.Module):
    """The last layer of regression: low + (high - low) sigmoid(x), a low and a high for each target.

    As fastai's `SigmoidRange`, which has one range for all. Not bounded, it leaves the sigmoid out: the same scale, and
    no end. low, high: the targets' own units.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], bounded: bool = True):
        super().__init__()
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32))
        self.bounded = bounded

    def forward(self, x: Tensor) -> Tensor:
        """(n, targets) -> (n, targets), in the targets' own units."""
        return self.low + (self.high - self.low) * (x.sigmoid() if self.bounded else x)

    def to_json(self) -> dict[str, Any]:
        """The range as plain JSON values."""
        return {"low": self.low.tolist(), "high": self.high.tolist(), "bounded": self.bounded}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Range":
        """The range that `to_json` wrote."""
        return cls(values["low"], values["high"], values["bounded"])


def range_of(recipe: Recipe, labels: Sequence[str]) -> Range:
    """The range of regression: as the recipe says, or a tenth beyond the numbers of the training images."""
    values = np.array([numbers_of(label) for label in labels], dtype=np.float64)
    low, high = values.min(0), values.max(0)
    spread = np.where(high > low, high - low, 1.0)
    if recipe.limits():
        low, high = (np.full(values.shape[1], end) for end in recipe.limits())
    else:
        low, high = low - MARGIN * spread, high + MARGIN * spread
    return Range(low.tolist(), high.tolist(), bounded=recipe.y_range != "none")


def with_head(body: Body, outputs: int, limits: Range | None = None, kind: str = FASTAI) -> nn.Module:
    """Body and head as one module of two parts.

    outputs: classes or targets; limits: regression's range, which becomes the head's last layer; kind: "linear"
    (average pooling and one linear layer), or "fastai" (its pooling, two linear layers with batch norm and dropout).
    """
    if kind == FASTAI:
        network = add_head(body.module, body.features, outputs, pool=not body.pooled)
    else:
        pooling = [] if body.pooled else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        network = nn.Sequential(body.module, nn.Sequential(*pooling, nn.Linear(body.features, outputs)))
    if limits is not None:
        network[1].append(limits)
    return network


def parts_of(head: nn.Sequential) -> tuple[list[nn.Module], list[nn.Module]]:
    """The layers of a head that pool, where it has such, and those behind: these are given the features of an image."""
    layers, pooling = list(head), 2 if isinstance(head[0], AdaptiveConcatPool2d | nn.AdaptiveAvgPool2d) else 0
    return layers[:pooling], layers[pooling:]


def featurizer(network: nn.Sequential) -> nn.Sequential:
    """Body and pooling: images (n, 3, h, w) to features (n, f). The modules are the network's own."""
    return nn.Sequential(network[0], *parts_of(network[1])[0])


def classifier(network: nn.Sequential) -> nn.Sequential:
    """What stands behind the features: (n, f) to (n, outputs). The modules are the network's own."""
    return nn.Sequential(*parts_of(network[1])[1])


def empty_network(name: str, outputs: int, size: int, limits: Range | None = None, kind: str = FASTAI) -> nn.Module:
    """The same module with random weights, for a bundle to fill."""
    architecture = find_architecture(name)
    return with_head(cut_body(build_network(architecture), architecture, size), outputs, limits, kind)
