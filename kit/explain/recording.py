"""What hooks see of the forward passes of a step: shapes, features, dropout masks, outputs, batch norms.

with Recording(network, norms_of(network)) as recorded:
    network(x)
recorded.shapes                                  # [('Conv2d 7 × 7, stride 2', (16, 64, 112, 112)), ...]
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kit.mechanism import layers
from kit.mechanism.trace import Step
from kit.model.heads import classifier

Shape = tuple[str, tuple[int, ...]]


@dataclass
class Norm:
    """A batch norm in training mode: what it remembered before and after, of its first feature, the mean of the batch,
    and the largest difference of all running statistics by hand from PyTorch's."""

    name: str
    momentum: float
    by_hand: layers.BatchNorm
    before: float
    mean: float = 0.0
    after: float = 0.0
    moved: float = 0.0
    largest: float = 0.0


@dataclass
class Recorded:
    """What hooks saw of one forward pass: kind and shape of the output of each layer, the features that the head got,
    its dropout masks, and the outputs of the last linear layer."""

    shapes: list[Shape] = field(default_factory=list)
    features: Tensor | None = None
    masks: list[Tensor] = field(default_factory=list)
    outputs: Tensor | None = None


class Recording:
    """Records the forward passes of a network inside the block."""

    def __init__(self, network: nn.Module, norms: dict[nn.Module, Norm]):
        self.network, self.norms, self.recorded = network, norms, Recorded()

    def __enter__(self) -> Recorded:
        body, head = self.network
        self.hooks = [one.register_forward_hook(self._shape) for one in [*stages(body), *stages(head)]]
        after_pooling = list(classifier(self.network))
        self.hooks.append(after_pooling[0].register_forward_pre_hook(self._features))
        last = next(one for one in reversed(after_pooling) if isinstance(one, nn.Linear))
        self.hooks.append(last.register_forward_hook(self._outputs))
        for one in after_pooling:
            if isinstance(one, nn.Dropout):
                self.hooks.append(one.register_forward_hook(self._mask))
        for module, norm in self.norms.items():
            self.hooks.append(module.register_forward_pre_hook(partial(self._norm, norm)))
        return self.recorded

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _shape(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.recorded.shapes.append((kind_of(module), tuple(output.shape)))

    def _features(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        self.recorded.features = inputs[0]

    def _outputs(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
        self.recorded.outputs = output

    def _mask(self, module: nn.Dropout, inputs: Any, output: Tensor) -> None:
        self.recorded.masks.append((output.detach() != 0).float() / (1 - module.p))

    def _norm(self, norm: Norm, module: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0].detach().float().contiguous()
        norm.mean = float(x.transpose(0, 1).flatten(1)[0].mean())
        norm.by_hand(x)


def stages(part: nn.Module) -> list[nn.Module]:
    """The modules of a body or head whose outputs are shown."""
    children = list(part.children())
    while len(children) == 1:
        children = list(children[0].children())
    return children


@torch.no_grad()
def shapes_of(network: nn.Module, size: int) -> list[Shape]:
    """The shapes of one image of `size` pixels a side on its way through a network, in evaluation mode."""
    device = next(network.parameters()).device
    with Recording(network, {}) as recorded:
        network.eval()(torch.zeros(1, 3, size, size, device=device))
    return recorded.shapes


def kind_of(module: nn.Module) -> str:
    """A layer in a few words: its class, and the size of a convolution's filters."""
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
        return f"{name} {module.kernel_size[0]} × {module.kernel_size[1]}{stride}"
    if isinstance(module, nn.Sequential) and len(module):
        return f"{len(module)} × {type(module[0]).__name__}"
    return name


def norms_of(network: nn.Module) -> dict[nn.Module, Norm]:
    """The batch norms in training mode, each with one by hand that starts from what it remembers."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.track_running_stats:
            by_hand = layers.BatchNorm(module.num_features, module.eps, module.momentum)
            by_hand.running_mean = module.running_mean.clone()
            by_hand.running_var = module.running_var.clone()
            by_hand.weight, by_hand.bias = (p.detach().clone() for p in (module.weight, module.bias))
            found[module] = Norm(name, module.momentum, by_hand, float(module.running_mean[0]))
            found[module].moved = module.running_mean.clone()
    return found


def finish_norm(norm: Norm, ours: Step) -> None:
    """Compare the running statistics by hand with PyTorch's after the step."""
    mean, variance = (ours[f"statistic {norm.name}.{name}"] for name in ("running_mean", "running_var"))
    differences = ((norm.by_hand.running_mean - mean).abs().max(), (norm.by_hand.running_var - variance).abs().max())
    norm.after, norm.largest = float(mean[0]), float(max(differences))
    norm.moved = float((mean - norm.moved).norm() / norm.moved.norm().clamp(min=1e-12))
