"""The network for inference: pixels in; probabilities, features and heat maps out, in one forward pass.

The same module predicts with torch and is exported as model.onnx, so that both give the same outputs. A heat map needs
the gradient of a class with respect to the body's last feature maps (Grad-CAM: Selvaraju et al., 2017). The head is
short, so its gradient is written here as a formula of the forward pass, and prediction needs no autograd.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kit.model.heads import Range, split_head
from kit.tasks import of
from kit.tasks.text import CLASSIFICATION


class InferenceModel(nn.Module):
    """A network in eval mode in three parts: `preprocess` (from pixels), `body` (to feature maps), `head` (to outputs).

    network: body and head, as `with_head` returns them. rules: `image` of a bundle's config (mean and std are used).
    """

    def __init__(self, network: nn.Module, rules: Mapping[str, Any], task: str = CLASSIFICATION):
        super().__init__()
        self.preprocess = Preprocess(rules["mean"], rules["std"])
        self.body = network[0]
        self.head = InferenceHead(network[1], task)
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """uint8 (n, size, size, 3) -> outputs (n, classes), features (n, f), and maps (n, classes, h, w).

        Outputs are probabilities, or regression's numbers. Maps are returned only where the body ends in feature maps;
        they are 0 where the image is no evidence for the class.
        """
        return self.head(self.body(self.preprocess(pixels)))


class Preprocess(nn.Module):
    """uint8 pixels (n, size, size, 3) to normalised float32 (n, 3, size, size)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Scale to 0..1, subtract the mean, divide by the standard deviation."""
        return (pixels.permute(0, 3, 1, 2).to(torch.float32) / 255 - self.mean) / self.std


class InferenceHead(nn.Module):
    """A head that also returns features and heat maps. Of regression, a map shows evidence for a higher number."""

    def __init__(self, head: nn.Sequential, task: str):
        super().__init__()
        self.task = task
        pooling, classifier = split_head(head)
        self.pool = nn.Sequential(*pooling) if pooling else None
        output_range = classifier.pop() if isinstance(classifier[-1], Range) else None
        self.output_range = output_range
        self.classifier = LinearHead(*classifier) if len(classifier) == 1 else TwoLayerHead(classifier)

    def forward(self, activations: Tensor) -> tuple[Tensor, ...]:
        """Output of the body, (n, k, h, w) or (n, f) -> outputs, features, and heat maps in the first case."""
        features = self.pool(activations) if self.pool else activations.flatten(1)
        logits, gradients = self.classifier(features)
        outputs = self.outputs(logits)
        if self.pool is None:
            return outputs, features
        return outputs, features, self.maps(activations, gradients)

    def outputs(self, logits: Tensor) -> Tensor:
        """Logits (n, classes) to probabilities by softmax or, for multilabel, sigmoid; or to numbers in their range."""
        if self.output_range is not None:
            return self.output_range(logits)
        return of(self.task).activation(logits)

    def maps(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Grad-CAM of every class: activations (n, k, h, w), gradients of logits by features (n or 1, classes, f).

        A channel's weight is the mean gradient over its h w positions. Average pooling spreads the gradient evenly over
        all of them, maximum pooling sends it to one of them: in both cases the mean is the gradient / (h w).
        """
        channels = activations.shape[1]
        if gradients.shape[-1] == 2 * channels:  # fastai's pooling: maximum, then average
            gradients = gradients[..., :channels] + gradients[..., channels:]
        positions = activations.shape[2] * activations.shape[3]
        return (gradients @ activations.flatten(2) / positions).relu().unflatten(2, activations.shape[2:])


class LinearHead(nn.Module):
    """One linear layer: features (n, f) to logits (n, classes), and the gradients of logits by features."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes), and gradients (1, classes, f), which are the same for all images."""
        return self.linear(features), self.linear.weight[None]


class TwoLayerHead(nn.Module):
    """fastai's two linear layers with batch norms; dropout is left out, as in eval mode."""

    def __init__(self, classifier: Sequence[nn.Module]):
        super().__init__()
        self.norm1, _, self.linear1, _, self.norm2, _, self.linear2 = classifier

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes), and gradients of the logits by the features (n, classes, f)."""
        hidden = self.linear1(self.norm1(features))
        active = (hidden > 0).to(hidden.dtype)
        to_hidden = (self.linear2.weight * _scale(self.norm2))[None] * active[:, None]  # (n, classes, 512)
        gradients = to_hidden @ (self.linear1.weight * _scale(self.norm1))
        return self.linear2(self.norm2(hidden.relu())), gradients


class InBf16(nn.Module):
    """A body that computes under bf16 autocast, with channels last in memory, and returns fp32."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the body for x, float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.body(x.contiguous(memory_format=torch.channels_last)).float()


def _scale(norm: nn.BatchNorm1d) -> Tensor:
    """The factor by which a batch norm multiplies in eval mode."""
    return norm.weight / (norm.running_var + norm.eps).sqrt()
