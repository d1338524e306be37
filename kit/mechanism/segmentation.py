"""Semantic segmentation: a class for every pixel, by a fully convolutional network with transposed convolutions.

The network has no Linear layer: convolutions make the image smaller and find what is there, a 1x1 convolution gives
class scores for each position, and transposed convolutions make the scores as large as the image again. The scores of
an earlier, larger layer are added on the way, because the small image no longer holds where exactly an edge is.
Run `python -m kit.mechanism.segmentation` to train it on drawn scenes in less than a minute.
Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, 2015.
"""

from random import Random

import torch
from torch import Tensor

from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.convolution import Conv2d, ConvTranspose2d
from kit.mechanism.layers import Array, Layer, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.loop import Learner, ParamScheduler, backward_by_hand
from kit.mechanism.networks import conv_bn
from kit.mechanism.optimizers import Adam
from kit.mechanism.schedules import one_cycle

CLASSES = ("background", "disc", "square", "ring")


def draw_scenes(count: int, size: int = 32, seed: int = 0) -> Dataset:
    """Draw scenes with a disc, a square and a ring, in random colours and places; a later shape covers earlier ones.

    Returns images (count, 3, size, size) from 0 to 1 and labels (count, size, size), indices of `CLASSES`. Colours say
    nothing about the class, so the network has to look at edges and corners.
    """
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    images = (0.4 * rand(count, 3, 1, 1)).expand(-1, -1, size, size)
    labels = torch.zeros(count, size, size).long()
    across, down = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy")
    for shapes in torch.stack([torch.randperm(3, generator=generator) for _ in range(count)]).T:
        radius = size * (0.12 + 0.1 * rand(count, 1, 1))
        x, y = (radius + (size - 2 * radius) * rand(count, 1, 1) for _ in range(2))
        distance, side = ((across - x) ** 2 + (down - y) ** 2).sqrt(), (across - x).abs().maximum((down - y).abs())
        disc, square = distance <= radius, side <= 0.85 * radius
        inside = torch.stack([disc, square, disc & (distance > 0.55 * radius)])[shapes, torch.arange(count)]
        images = torch.where(inside[:, None], 0.4 + 0.6 * rand(count, 3, 1, 1), images)
        labels = torch.where(inside, 1 + shapes[:, None, None], labels)
    return Dataset((images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(0, 1), labels)


class PixelCrossEntropy(SoftmaxCrossEntropy):
    """Cross entropy of every pixel: logits (n, classes, h, w), target (n, h, w); the mean over all pixels."""

    def __call__(self, logits: Array, target: Tensor) -> Array:
        n, classes, h, w = logits.shape
        self.shape = (n, h, w, classes)
        return super().__call__(logits.permute(0, 2, 3, 1).reshape(-1, classes), target.flatten())

    def backward(self) -> Tensor:
        """Return (softmax(logits) - target) / number of pixels, of shape (n, classes, h, w)."""
        return super().backward().reshape(self.shape).permute(0, 3, 1, 2)


def bilinear(layer: ConvTranspose2d) -> ConvTranspose2d:
    """Set the weight to bilinear interpolation of each channel by itself, from where training goes on."""
    channels, _, size, _ = layer.weight.shape
    middle = (size - 1) / 2
    line = 1 - (torch.arange(size) - middle).abs() / ((size + 1) // 2)
    layer.weight = torch.eye(channels)[:, :, None, None] * line[:, None] * line
    return layer


class FCN(Layer):
    """A fully convolutional network for images (n, 3, h, w), h and w divisible by 4: (n, classes, h, w) scores.

    skip: whether the scores of the layer at half the size are added to those from a quarter of the size.
    """

    def __init__(self, classes: int, width: int = 16, skip: bool = True):
        self.half = Sequential(*conv_bn(3, width, 3), ReLU(), *conv_bn(width, width, 3, stride=2), ReLU())
        self.quarter = Sequential(
            *(*conv_bn(width, 2 * width, 3, stride=2), ReLU()),
            *(*conv_bn(2 * width, 2 * width, 5), ReLU()),
            Conv2d(2 * width, classes, 1),
        )
        self.double = bilinear(ConvTranspose2d(classes, classes, 4, 2, 1))
        self.skip = Conv2d(width, classes, 1) if skip else None
        self.whole = bilinear(ConvTranspose2d(classes, classes, 4, 2, 1))

    def forward(self, x: Array) -> Array:
        features = self.half(x)
        scores = self.double(self.quarter(features))
        return self.whole(scores + self.skip(features) if self.skip else scores)

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient of the sum goes both ways; where they come together again, their gradients add up."""
        grad = self.whole.backward(grad)
        features = self.quarter.backward(self.double.backward(grad))
        return self.half.backward(features + self.skip.backward(grad) if self.skip else features)


def intersection_over_union(prediction: Tensor, target: Tensor, classes: int) -> list[float]:
    """Return for each class the number of pixels in both, divided by those in either; NaN for a class in neither.

    prediction, target: class indices of one shape. Predicting background everywhere has a high accuracy, but an
    intersection over union of 0 for all other classes.
    """
    both = [((prediction == label) & (target == label)).sum() for label in range(classes)]
    either = [((prediction == label) | (target == label)).sum() for label in range(classes)]
    return (torch.stack(both) / torch.stack(either)).tolist()


def predict(network: Layer, images: Tensor) -> Tensor:
    """Return the class of every pixel: (n, 3, h, w) -> (n, h, w)."""
    return network.eval()(images).argmax(1)


def train(network: Layer, data: Dataset, valid: Dataset, epochs: int = 12, lr: float = 0.02) -> list[dict[str, float]]:
    """Train with Adam and one cycle; return for each epoch both losses and the share of correct pixels."""
    batches = DataLoader(data, 16, shuffle=True, rng=Random(0)), DataLoader(valid, 50)
    learner = Learner(network, *batches, PixelCrossEntropy(), Adam(network.parameters(), lr), backward_by_hand)
    rate, momentum = one_cycle(lr)
    learner.fit(epochs, [ParamScheduler([rate], momentum)])
    return learner.rows


def main() -> None:
    """Train with and without the skip; print accuracy and intersection over union, and one scene with its answer."""
    data, valid = draw_scenes(400), draw_scenes(100, seed=1)
    print(f"{'':24}  accuracy ", *(f"{name:>10}" for name in CLASSES), "  intersection over union")
    answers = {"background everywhere": torch.zeros_like(valid.y)}
    for name, skip in (("without the skip", False), ("with the skip", True)):
        torch.manual_seed(0)
        network = FCN(len(CLASSES), skip=skip)
        train(network, data, valid)
        answers[name] = predict(network, valid.x)
    for name, answer in answers.items():
        accuracy, shares = (answer == valid.y).double().mean(), intersection_over_union(answer, valid.y, len(CLASSES))
        print(f"{name:24}  {accuracy:8.1%} ", *(f"{share:10.3f}" for share in shares))
    print("labels, and the answer with the skip:")
    for true, answered in zip(valid.y[0, ::2], answers["with the skip"][0, ::2], strict=True):
        print("  ", *("".join(".osr"[label] for label in row) for row in (true.tolist(), answered.tolist())))


if __name__ == "__main__":
    main()
