"""Networks: the famous shapes, each in the smallest form that still shows its idea and learns real digits.

MLP: layers of units. LeNet: filters, then layers. AlexNet: ReLU and dropout. VGG: nothing but 3x3, deeper and wider.
GoogLeNet: several filters side by side, made cheap by 1x1. ResNet: layers that only add to what passes by. Fully
convolutional: no Linear layer, so any image size. All are `Layer`s: forward, and backward by hand.

    python -m kit.mechanism.networks [--out FOLDER]
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from kit.mechanism.autograd import cat
from kit.mechanism.convolution import AvgPool2d, Conv2d, GlobalAvgPool, MaxPool2d
from kit.mechanism.layers import Array, BatchNorm, Dropout, Flatten, Layer, Linear, ReLU, Sequential, Tanh

Dice = torch.Generator | None


class Residual(Layer):
    """relu(body(x) + shortcut(x)): the body learns only what is to change; the gradient also takes the short way.

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016. The shortcut is x itself, or
    a 1x1 convolution where the body changes the number of channels or the size.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, generator: Dice = None):
        self.body = Sequential(
            *normed(inputs, outputs, 3, stride, generator), ReLU(), *normed(outputs, outputs, 3, 1, generator)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = Sequential() if same else Sequential(*normed(inputs, outputs, 1, stride, generator))
        self.relu = ReLU()

    def children(self) -> list[Layer]:
        """Body, shortcut, and the ReLU after their sum."""
        return [self.body, self.shortcut, self.relu]

    def forward(self, x: Array) -> Array:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride), sizes rounded up."""
        return self.relu(self.body(x) + self.shortcut(x))

    def backward(self, grad: Tensor) -> Tensor:
        """A sum sends its gradient down both ways; where they began, the two gradients add up."""
        grad = self.relu.backward(grad)
        return self.body.backward(grad) + self.shortcut.backward(grad)


class Concat(Layer):
    """Branches that look at the same input, their channels joined: (n, c, h, w) -> (n, the sum of theirs, h, w)."""

    def __init__(self, *branches: Layer):
        self.branches = list(branches)

    def children(self) -> list[Layer]:
        """The branches, in order."""
        return self.branches

    def forward(self, x: Array) -> Array:
        """Every branch's channels, one after the other."""
        outputs = [branch(x) for branch in self.branches]
        self.channels = [output.shape[1] for output in outputs]
        return cat(outputs, dim=1)

    def backward(self, grad: Tensor) -> Tensor:
        """To every branch the gradient of its own channels; their input was one, so what comes back adds up."""
        parts = grad.split(self.channels, dim=1)
        return sum(branch.backward(part) for branch, part in zip(self.branches, parts, strict=True))


def normed(inputs: int, outputs: int, kernel: int, stride: int = 1, generator: Dice = None) -> list[Layer]:
    """A convolution that keeps the size (at stride 1), and batch norm. A bias would be subtracted with the mean."""
    return [Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False, generator=generator), BatchNorm(outputs)]


def active(inputs: int, outputs: int, kernel: int, generator: Dice = None) -> list[Layer]:
    """A convolution that keeps the size, and ReLU."""
    return [Conv2d(inputs, outputs, kernel, padding=kernel // 2, generator=generator), ReLU()]


def flattened(features: Sequential, channels: int, size: int) -> int:
    """How many numbers `features` makes of an image (channels, size, size), found by sending one through."""
    return features(torch.zeros(1, channels, size, size)).numel()


def mlp(*widths: int, generator: Dice = None) -> Sequential:
    """Multi-layer perceptron: `mlp(64, 32, 10)` has 64 inputs, 32 hidden units and 10 classes. x (n, ...)."""
    if len(widths) < 2:
        raise ValueError(f"mlp{widths}: expected the number of inputs, any hidden widths, and the number of classes")
    layers = [Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [Linear(inputs, outputs, generator), ReLU()]
    return Sequential(*layers[:-1])


def lenet(
    size: int = 28, channels: int = 1, classes: int = 10, activation: type[Layer] = Tanh, generator: Dice = None
) -> Sequential:
    """LeNet-5 (LeCun et al., 1998): 5x5 filters, tanh or sigmoid, average pooling, three Linear layers. size >= 12."""
    features = Sequential(
        Conv2d(channels, 6, 5, padding=2, generator=generator), activation(), AvgPool2d(2),
        Conv2d(6, 16, 5, generator=generator), activation(), AvgPool2d(2), Flatten(),
    )  # fmt: skip
    return Sequential(
        *features.layers,
        Linear(flattened(features, channels, size), 120, generator), activation(),
        Linear(120, 84, generator), activation(),
        Linear(84, classes, generator),
    )  # fmt: skip


def alexnet(
    size: int = 16, channels: int = 1, classes: int = 10, width: int = 16, dropout: float = 0.5, generator: Dice = None
) -> Sequential:
    """AlexNet (Krizhevsky, Sutskever and Hinton, 2012): LeNet deeper, with ReLU, dropout, and pools that overlap.

    Five convolutions and three Linear layers as there, the filters 3x3 and few, for images of 16 pixels a side.
    """
    features = Sequential(
        *active(channels, width, 3, generator), MaxPool2d(3, 2),
        *active(width, 2 * width, 3, generator), MaxPool2d(3, 2),
        *active(2 * width, 3 * width, 3, generator),
        *active(3 * width, 3 * width, 3, generator),
        *active(3 * width, 2 * width, 3, generator), MaxPool2d(3, 2), Flatten(),
    )  # fmt: skip
    return Sequential(
        *features.layers,
        Dropout(dropout, generator), Linear(flattened(features, channels, size), 4 * width, generator), ReLU(),
        Dropout(dropout, generator), Linear(4 * width, 4 * width, generator), ReLU(),
        Linear(4 * width, classes, generator),
    )  # fmt: skip


def vgg(
    size: int = 8,
    channels: int = 1,
    classes: int = 10,
    stages: Sequence[tuple[int, int]] = ((1, 16), (2, 32), (2, 64)),
    dropout: float = 0.5,
    generator: Dice = None,
) -> Sequential:
    """VGG (Simonyan and Zisserman, 2015): 3x3 only. `stages`: (convolutions, channels), each ends in a pool of 2."""
    layers, inputs = [], channels
    for convolutions, width in stages:
        for _ in range(convolutions):
            layers += active(inputs, width, 3, generator)
            inputs = width
        layers.append(MaxPool2d(2))
    hidden = Linear(flattened(Sequential(*layers), channels, size), inputs, generator)
    layers += [Flatten(), hidden, ReLU(), Dropout(dropout, generator), Linear(inputs, classes, generator)]
    return Sequential(*layers)


def inception(inputs: int, width: int, generator: Dice = None) -> Concat:
    """Filters of 1, 3 and 5 and a pool side by side: (n, inputs, h, w) -> (n, 5 width, h, w).

    Source: Szegedy et al., "Going deeper with convolutions", 2015. The 1x1 before the larger filters makes them cheap:
    they look at `width` channels, not at all the inputs.
    """
    return Concat(
        Sequential(*active(inputs, width, 1, generator)),
        Sequential(*active(inputs, width, 1, generator), *active(width, 2 * width, 3, generator)),
        Sequential(*active(inputs, width, 1, generator), *active(width, width, 5, generator)),
        Sequential(MaxPool2d(3, 1, padding=1), *active(inputs, width, 1, generator)),
    )


def googlenet(
    channels: int = 1, classes: int = 10, width: int = 8, dropout: float = 0.4, generator: Dice = None
) -> Sequential:
    """GoogLeNet (Szegedy et al., 2015): inception blocks, and a global average in place of large Linear layers."""
    return Sequential(
        *active(channels, 2 * width, 3, generator),
        inception(2 * width, width, generator), MaxPool2d(2),
        inception(5 * width, 2 * width, generator), GlobalAvgPool(),
        Dropout(dropout, generator), Linear(10 * width, classes, generator),
    )  # fmt: skip


def resnet(
    channels: int = 1,
    classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    generator: Dice = None,
) -> Sequential:
    """ResNet (He et al., 2016): stages of `blocks` residual blocks; from the second on, each halves the size first."""
    layers = [*normed(channels, widths[0], 3, 1, generator), ReLU()]
    for inputs, width in zip((widths[0], *widths), widths, strict=False):
        layers.append(Residual(inputs, width, 1 if len(layers) == 3 else 2, generator))
        layers += [Residual(width, width, 1, generator) for _ in range(blocks - 1)]
    return Sequential(*layers, GlobalAvgPool(), Linear(widths[-1], classes, generator))


def fully_convolutional(channels: int = 1, classes: int = 10, width: int = 16, generator: Dice = None) -> Sequential:
    """No Linear layer, so images of any size: a 1x1 convolution scores every place, and the mean decides.

    Source: Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2015. Without its
    last layer it answers for every place: (n, classes, h / 2, w / 2), sizes rounded up.
    """
    return Sequential(
        *active(channels, width, 3, generator),
        Conv2d(width, 2 * width, 3, stride=2, padding=1, generator=generator), ReLU(),
        *active(2 * width, 2 * width, 3, generator),
        Conv2d(2 * width, classes, 1, generator=generator), GlobalAvgPool(),
    )  # fmt: skip


def count(network: Layer) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def stacked(kernels: Sequence[int], channels: int = 1) -> tuple[int, int]:
    """(receptive field, weights) of convolutions of these kernels on top of each other, `channels` in and out.

    stacked([3, 3]) is (5, 18), stacked([5]) is (5, 25): the same 5x5 pixels seen, with fewer weights and one more
    activation between (Simonyan and Zisserman, 2015).
    """
    return 1 + sum(kernel - 1 for kernel in kernels), sum(kernel**2 * channels**2 for kernel in kernels)


def first_filters(network: Layer) -> Tensor:
    """The weights of the first convolution, (outputs, inputs, kernel, kernel): what the network looks for in pixels."""
    for layer in network.modules():
        if isinstance(layer, Conv2d):
            return layer.weight
    raise ValueError("this network has no Conv2d, so it has no filters to show")


def feature_maps(network: Sequential, x: Tensor, depth: int) -> Tensor:
    """What the first `depth` layers make of images (n, channels, h, w) when predicting: (n, maps, rows, columns)."""
    if not 1 <= depth <= len(network.layers):
        raise ValueError(f"depth {depth}: this network has layers 1 to {len(network.layers)}")
    training = network.training
    maps = Sequential(*network.eval().layers[:depth])(x)
    network.train(training)
    return maps


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Every pixel becomes a square of factor x factor: (n, channels, h, w) -> (n, channels, factor h, factor w)."""
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def main() -> None:
    """Every network on real digits: its size, and how well it reads after three epochs; then what it looks at."""
    parser = argparse.ArgumentParser(description="every network on scikit-learn's digits")
    parser.add_argument("--out", type=Path, help="a folder for pictures of filters and feature maps")
    out = parser.parse_args().out
    dice = torch.Generator().manual_seed(0)
    networks = {
        "MLP": mlp(64, 32, 10, generator=dice),
        "LeNet": lenet(16, generator=dice),
        "AlexNet": alexnet(16, dropout=0.2, generator=dice),  # the paper's half would need more than three epochs
        "VGG": vgg(8, generator=dice),
        "GoogLeNet": googlenet(generator=dice),
        "ResNet": resnet(generator=dice),
        "fully convolutional": fully_convolutional(generator=dice),
    }
    for name, network in networks.items():
        digits, accuracy = _learn(network, 2 if name in ("LeNet", "AlexNet") else 1, dice)
        print(f"{name:<20} {count(network):>6} parameters read {accuracy:.1%} of held-out digits")
    for channels in (1, 64):
        (field, two), (_, one) = stacked([3, 3], channels), stacked([5], channels)
        print(f"{channels:>2} channels: both see {field}x{field}, two 3x3 with {two} weights, one 5x5 with {one}")
    if out:
        from kit.mechanism.plots import images

        images(first_filters(networks["LeNet"])[:, 0]).savefig(out / "filters.png")
        images(feature_maps(networks["LeNet"], enlarge(digits[:1], 2), 2)[0]).savefig(out / "feature_maps.png")
        print(f"pictures in {out}")


def _learn(network: Layer, factor: int, dice: torch.Generator) -> tuple[Tensor, float]:
    """Three epochs on scikit-learn's digits, `factor` times as large: those held out, and the share that is right."""
    from sklearn.datasets import load_digits

    from kit.mechanism import batches, layers, loop, optimizers

    digits = load_digits()
    x = enlarge(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, factor)
    train, valid = batches.Dataset(x, torch.tensor(digits.target)).split(0.2, dice)
    loaders = batches.DataLoader(train, 16, shuffle=True, rng=Random(0)), batches.DataLoader(valid, 360)
    optimizer = optimizers.Adam(network.parameters(), 0.0015)
    rows = loop.fit(3, network, *loaders, layers.SoftmaxCrossEntropy(), optimizer)
    return valid.x, rows[-1]["accuracy"]


if __name__ == "__main__":
    main()
