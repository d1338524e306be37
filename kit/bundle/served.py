"""The network as it is served: pixels in; probabilities, features and heat maps out, in one forward pass.

The same module answers in torch and becomes model.onnx, so that both say the same. A heat map needs the gradient of a
class with respect to the body's last feature maps (Grad-CAM: Selvaraju et al., 2017). The head behind them is short
enough that its chain rule is written here as a formula of the forward pass: nothing is left to differentiate later.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kit.model.heads import Range, parts_of
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION


class Served(nn.Module):
    """A body with its head, in eval mode: `prepare` normalises pixels, `body` makes feature maps, `answer` all outputs.

    network: body and head, as `with_head` makes them. rules: `image` of a bundle's config (mean and std are used).
    """

    def __init__(self, network: nn.Module, rules: Mapping[str, Any], task: str = CLASSIFICATION):
        super().__init__()
        self.prepare = Prepare(rules["mean"], rules["std"])
        self.body = network[0]
        self.answer = Answer(network[1], task)
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """uint8 (n, size, size, 3) -> outputs (n, classes), features (n, f), and maps (n, classes, h, w).

        Outputs are probabilities, or regression's numbers. The maps are there where the body ends in feature maps; 0
        says that a place did not speak for the class.
        """
        return self.answer(self.body(self.prepare(pixels)))


class Prepare(nn.Module):
    """uint8 pixels (n, size, size, 3) to normalised float32 (n, 3, size, size)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Scale to 0..1, subtract the mean, divide by the standard deviation."""
        return (pixels.permute(0, 3, 1, 2).to(torch.float32) / 255 - self.mean) / self.std


class Answer(nn.Module):
    """A head with everything that is asked of it: outputs, features, and heat maps. Of regression, a map shows what
    speaks for a higher number."""

    def __init__(self, head: nn.Sequential, task: str):
        super().__init__()
        self.task = task
        pooling, classifier = parts_of(head)
        self.pool = nn.Sequential(*pooling) if pooling else None
        limits = classifier.pop() if isinstance(classifier[-1], Range) else None
        self.limits = limits if task == REGRESSION else None
        self.classifier = LinearHead(*classifier) if len(classifier) == 1 else TwoLayerHead(classifier)

    def forward(self, activations: Tensor) -> tuple[Tensor, ...]:
        """What the body makes of images, (n, k, h, w) or (n, f), to outputs, features and, of maps, maps."""
        features = self.pool(activations) if self.pool else activations.flatten(1)
        logits, gradients = self.classifier(features)
        outputs = self.outputs(logits)
        if self.pool is None:
            return outputs, features
        return outputs, features, self.maps(activations, gradients)

    def outputs(self, logits: Tensor) -> Tensor:
        """What the logits (n, classes) mean: one class, each class for itself, or numbers."""
        if self.limits is not None:
            return self.limits(logits)
        return logits.sigmoid() if self.task == MULTILABEL else logits.softmax(1)

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Grad-CAM of every class: activations (n, k, h, w), gradients of logits by features (n or 1, classes, f).

        A channel's weight is the mean gradient over its places. Through the average it is the gradient / (h w) at each
        of them, through the maximum the gradient at one of them: both means are the gradient / (h w).
        """
        channels = activations.shape[1]
        if gradients.shape[-1] == 2 * channels:  # fastai's pooling: maximum, then average
            gradients = gradients[..., :channels] + gradients[..., channels:]
        places = activations.shape[2] * activations.shape[3]
        return (gradients @ activations.flatten(2) / places).relu().unflatten(2, activations.shape[2:])


class LinearHead(nn.Module):
    """One linear layer: features (n, f) to logits (n, classes), and the gradients of logits by features."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes), and gradients (1, classes, f): they are the same for all images."""
        return self.linear(features), self.linear.weight[None]


class TwoLayerHead(nn.Module):
    """fastai's two linear layers with batch norms, without the dropout, which does nothing when predicting."""

    def __init__(self, classifier: Sequence[nn.Module]):
        super().__init__()
        self.norm1, _, self.linear1, _, self.norm2, _, self.linear2 = classifier

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes), and gradients of the logits by the features (n, classes, f)."""
        hidden = self.linear1(self.norm1(features))
        alive = (hidden > 0).to(hidden.dtype)
        to_hidden = (self.linear2.weight * _scale(self.norm2))[None] * alive[:, None]  # (n, classes, 512)
        gradients = to_hidden @ (self.linear1.weight * _scale(self.norm1))
        return self.linear2(self.norm2(hidden.relu())), gradients


class InBf16(nn.Module):
    """A body that computes in bf16 where autocast says so, with channels last in memory, and answers in fp32."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """What the body makes of x, float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.body(x.contiguous(memory_format=torch.channels_last)).float()


def _scale(norm: nn.BatchNorm1d) -> Tensor:
    """What a batch norm multiplies by when predicting."""
    return norm.weight / (norm.running_var + norm.eps).sqrt()
