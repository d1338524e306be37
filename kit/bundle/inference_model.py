"""The network for inference: pixels in; probabilities, features and heat maps out, in one forward pass.

The same module predicts with torch and is exported as model.onnx, so that both give the same outputs. A heat map needs
the gradient of a class with respect to the body's last feature maps (Grad-CAM: Selvaraju et al., 2017). The head is
short, so its gradient is written here as a formula of the forward pass, and prediction needs no autograd.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kit.model.heads import Range, split_head
from kit.tasks import of
from kit.tasks.text import CLASSIFICATION


class InferenceModel(nn.Module):
    """A network in eval mode in three parts: `preprocess` (from pixels), `body` (to feature maps), `head` (to outputs).

    network: body and head, as `with_head` returns them. rules: `image` of a bundle's config (mean and std are used).
    """

    def __init__(self, network: nn.Module, rules: Mapping[str, Any], task: str = CLASSIFICATION):
        super().__init__()
        self.preprocess = Preprocess(rules)
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
    """uint8 pixels (n, size, size, 3) to normalised float32 (n, 3, size, size), or (n, 3, input, input) where `rules`
    (`image` of a bundle's config) has another size for the `input` of the network."""

    def __init__(self, rules: Mapping[str, Any]):
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(rules[name], dtype=torch.float32).reshape(1, 3, 1, 1))
        self.register_buffer("resampling", resampling(rules["size"], rules["input"]) if "input" in rules else None)

    def forward(self, pixels: Tensor) -> Tensor:
        """Scale to 0..1, resample, subtract the mean, divide by the standard deviation."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.resampling is not None:
            images = self.resampling @ images @ self.resampling.T
        return (images - self.mean) / self.std


def resampling(size: int, to: int) -> Tensor:
    """The matrix (to, size) that resamples rows as fastai does where batch transforms have a `size`: linearly, after
    averaging where the images become less than half as long."""
    rows = torch.eye(size)[None, :, :, None]
    if (skipped := size / to / 2) > 1:
        rows = F.interpolate(rows, scale_factor=(1 / skipped, 1.0), mode="area", recompute_scale_factor=True)
    return F.interpolate(rows, (to, 1), mode="bilinear", align_corners=True)[0, :, :, 0].T


class InferenceHead(nn.Module):
    """A head that also returns features and heat maps. Of regression, a map shows evidence for a higher number."""

    def __init__(self, head: nn.Sequential, task: str):
        super().__init__()
        self.task = task
        pooling, classifier = split_head(head)
        self.pool = nn.Sequential(*pooling) if pooling else None
        output_range = classifier.pop() if isinstance(classifier[-1], Range) else None
        self.output_range = output_range
        self.classifier = Classifier(*classifier)

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


class Classifier(nn.Sequential):
    """Linear layers, batch norms, ReLU and dropout: features (n, f) to logits, and their gradients by the features."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes), and gradients (n, classes, f); without ReLU (1, classes, f), the same for all images."""
        x, inputs, gradients = features, [], None
        for layer in self:
            inputs.append(x)
            x = layer(x)
        for layer, given in zip(reversed(self), reversed(inputs), strict=True):
            if isinstance(layer, nn.Linear):
                gradients = layer.weight[None] if gradients is None else gradients @ layer.weight
            elif isinstance(layer, nn.BatchNorm1d):
                scale = layer.weight / (layer.running_var + layer.eps).sqrt()
                gradients = (torch.eye(len(scale)).to(scale)[None] if gradients is None else gradients) * scale
            elif isinstance(layer, nn.ReLU):
                gradients = gradients * (given > 0)[:, None]
        return x, gradients


class InBf16(nn.Module):
    """A body that computes under bf16 autocast, with channels last in memory, and returns fp32."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the body for x, float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.body(x.contiguous(memory_format=torch.channels_last)).float()
