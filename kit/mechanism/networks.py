"""Networks: MLP, LeNet, AlexNet, VGG, GoogLeNet, ResNet and a fully convolutional network, in small versions.

Each keeps the main idea of its paper and learns the 8 x 8 digits of scikit-learn. All are `Layer`s with a backward
written by hand. Run `python -m kit.mechanism.networks` to train all of them for three epochs.
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import torch
from torch import Tensor

from kit.mechanism.autograd import cat
from kit.mechanism.convolution import AvgPool2d, Conv2d, GlobalAvgPool, MaxPool2d
from kit.mechanism.layers import Array, BatchNorm, Dropout, Flatten, Layer, Linear, ReLU, Sequential, Tanh


class Residual(Layer):
    """A residual block, relu(body(x) + shortcut(x)): the body learns the difference to x.

    The shortcut is x itself, or a 1x1 convolution where the body changes the channels or the size. The gradient also
    flows through the shortcut, so deep networks can be trained.
    Source: He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        self.body = Sequential(
            *conv_bn(in_channels, out_channels, 3, stride),
            ReLU(),
            *conv_bn(out_channels, out_channels, 3, 1),
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut = Sequential() if same else Sequential(*conv_bn(in_channels, out_channels, 1, stride))
        self.relu = ReLU()

    def forward(self, x: Array) -> Array:
        """(n, in_channels, h, w) -> (n, out_channels, h / stride, w / stride), rounded up."""
        return self.relu(self.body(x) + self.shortcut(x))

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient of the sum goes to body and shortcut; their input gradients add up."""
        grad = self.relu.backward(grad)
        return self.body.backward(grad) + self.shortcut.backward(grad)


class Concat(Layer):
    """Apply several branches to the same input and concatenate their channels."""

    def __init__(self, *branches: Layer):
        self.branches = list(branches)

    def forward(self, x: Array) -> Array:
        """(n, channels, h, w) -> (n, sum of the branches' channels, h, w)."""
        outputs = [branch(x) for branch in self.branches]
        self.channels = [output.shape[1] for output in outputs]
        return cat(outputs, dim=1)

    def backward(self, grad: Tensor) -> Tensor:
        """Each branch gets the gradient of its channels; the input gradients of the branches add up."""
        parts = grad.split(self.channels, dim=1)
        return sum(branch.backward(part) for branch, part in zip(self.branches, parts, strict=True))


def conv_bn(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> list[Layer]:
    """Convolution that keeps the size at stride 1, and batch norm, which makes a bias unnecessary."""
    conv = Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
    return [conv, BatchNorm(outputs)]


def conv_relu(inputs: int, outputs: int, kernel_size: int) -> list[Layer]:
    """Convolution that keeps the size, and ReLU."""
    return [Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2), ReLU()]


def num_features(body: Sequential, channels: int, size: int) -> int:
    """Return the number of outputs of `body` for one image (channels, size, size), by running it."""
    return body(torch.zeros(1, channels, size, size)).numel()


def mlp(*widths: int) -> Sequential:
    """Multi-layer perceptron: `mlp(64, 32, 10)` has 64 inputs, 32 hidden units and 10 classes. x: (n, ...)."""
    if len(widths) < 2:
        raise ValueError(f"mlp{widths}: expected the number of inputs, any hidden widths, and the number of classes")
    layers = [Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [Linear(inputs, outputs), ReLU()]
    return Sequential(*layers[:-1])


def lenet(size: int = 28, channels: int = 1, classes: int = 10, activation: type[Layer] = Tanh) -> Sequential:
    """LeNet-5 (LeCun et al., 1998): 5x5 filters, tanh or sigmoid, average pooling, three Linear layers; size >= 12."""
    body = Sequential(
        Conv2d(channels, 6, 5, padding=2), activation(), AvgPool2d(2),
        Conv2d(6, 16, 5), activation(), AvgPool2d(2), Flatten(),
    )  # fmt: skip
    return Sequential(
        *body.layers,
        Linear(num_features(body, channels, size), 120), activation(),
        Linear(120, 84), activation(),
        Linear(84, classes),
    )  # fmt: skip


def alexnet(
    size: int = 16,
    channels: int = 1,
    classes: int = 10,
    width: int = 16,
    dropout: float = 0.5,
) -> Sequential:
    """AlexNet (Krizhevsky, Sutskever and Hinton, 2012): deeper than LeNet, with ReLU, dropout and overlapping pools.

    Five convolutions and three Linear layers as in the paper, with fewer filters, all 3x3, for images of 16 pixels.
    """
    body = Sequential(
        *conv_relu(channels, width, 3), MaxPool2d(3, 2),
        *conv_relu(width, 2 * width, 3), MaxPool2d(3, 2),
        *conv_relu(2 * width, 3 * width, 3),
        *conv_relu(3 * width, 3 * width, 3),
        *conv_relu(3 * width, 2 * width, 3), MaxPool2d(3, 2), Flatten(),
    )  # fmt: skip
    return Sequential(
        *body.layers,
        Dropout(dropout), Linear(num_features(body, channels, size), 4 * width), ReLU(),
        Dropout(dropout), Linear(4 * width, 4 * width), ReLU(),
        Linear(4 * width, classes),
    )  # fmt: skip


def vgg(
    size: int = 8,
    channels: int = 1,
    classes: int = 10,
    stages: Sequence[tuple[int, int]] = ((1, 16), (2, 32), (2, 64)),
    dropout: float = 0.5,
) -> Sequential:
    """VGG (Simonyan and Zisserman, 2015): 3x3 filters only; more channels after each pool.

    stages: (number of convolutions, channels) of each stage; a stage ends with a 2x2 pool.
    """
    layers, inputs = [], channels
    for convolutions, width in stages:
        for _ in range(convolutions):
            layers += conv_relu(inputs, width, 3)
            inputs = width
        layers.append(MaxPool2d(2))
    hidden = Linear(num_features(Sequential(*layers), channels, size), inputs)
    layers += [Flatten(), hidden, ReLU(), Dropout(dropout), Linear(inputs, classes)]
    return Sequential(*layers)


def inception(inputs: int, width: int) -> Concat:
    """Inception block: 1x1, 3x3 and 5x5 filters and a pool in parallel: (n, inputs, h, w) -> (n, 5 width, h, w).

    A 1x1 convolution first reduces the channels to `width`, which makes the larger filters cheap.
    Source: Szegedy et al., Going deeper with convolutions, 2015.
    """
    return Concat(
        Sequential(*conv_relu(inputs, width, 1)),
        Sequential(*conv_relu(inputs, width, 1), *conv_relu(width, 2 * width, 3)),
        Sequential(*conv_relu(inputs, width, 1), *conv_relu(width, width, 5)),
        Sequential(MaxPool2d(3, 1, padding=1), *conv_relu(inputs, width, 1)),
    )


def googlenet(channels: int = 1, classes: int = 10, width: int = 8, dropout: float = 0.4) -> Sequential:
    """GoogLeNet (Szegedy et al., 2015): inception blocks, and global average pooling instead of large Linear layers."""
    return Sequential(
        *conv_relu(channels, 2 * width, 3),
        inception(2 * width, width), MaxPool2d(2),
        inception(5 * width, 2 * width), GlobalAvgPool(),
        Dropout(dropout), Linear(10 * width, classes),
    )  # fmt: skip


def resnet(
    channels: int = 1,
    classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
) -> Sequential:
    """ResNet (He et al., 2016): stages of `blocks` residual blocks; each stage after the first halves the image."""
    layers = [*conv_bn(channels, widths[0], 3, 1), ReLU()]
    for inputs, width in zip((widths[0], *widths), widths, strict=False):
        layers.append(Residual(inputs, width, 1 if len(layers) == 3 else 2))
        layers += [Residual(width, width, 1) for _ in range(blocks - 1)]
    return Sequential(*layers, GlobalAvgPool(), Linear(widths[-1], classes))


def fully_convolutional(channels: int = 1, classes: int = 10, width: int = 16) -> Sequential:
    """No Linear layer, so the image may have any size: a 1x1 convolution gives class scores for every position.

    The last layer averages the scores; without it the output is (n, classes, h / 2, w / 2), rounded up.
    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, 2015.
    """
    return Sequential(
        *conv_relu(channels, width, 3),
        Conv2d(width, 2 * width, 3, stride=2, padding=1), ReLU(),
        *conv_relu(2 * width, 2 * width, 3),
        Conv2d(2 * width, classes, 1), GlobalAvgPool(),
    )  # fmt: skip


def count_parameters(network: Layer) -> int:
    """Return the number of elements in all parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def receptive_field(kernel_sizes: Sequence[int], channels: int = 1) -> tuple[int, int]:
    """Return the receptive field and the number of weights of a stack of convolutions with `channels` in and out.

    Two 3x3 see 5x5 pixels with 18 weights, (5, 18); one 5x5 has 25 weights, (5, 25), and one activation less
    (Simonyan and Zisserman, 2015).
    """
    return 1 + sum(size - 1 for size in kernel_sizes), sum(size**2 * channels**2 for size in kernel_sizes)


def feature_maps(network: Sequential, x: Tensor, depth: int) -> Tensor:
    """Return the output of the first `depth` layers in evaluation mode for images (n, channels, h, w)."""
    training = network.training
    maps = Sequential(*network.eval().layers[:depth])(x)
    network.train(training)
    return maps


def train_on_digits(network: Layer, scale: int = 1) -> tuple[Tensor, float]:
    """Train three epochs on scikit-learn's digits, enlarged by `scale`; return the validation images and accuracy."""
    from kit.mechanism import batches, layers, loop, optimizers

    digits = batches.load_digits()
    x = digits.x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    train, valid = batches.Dataset(x, digits.y).split(0.2)
    loaders = batches.DataLoader(train, 16, shuffle=True, rng=Random(0)), batches.DataLoader(valid, 360)
    optimizer = optimizers.Adam(network.parameters(), 0.0015)
    rows = loop.fit(3, network, *loaders, layers.SoftmaxCrossEntropy(), optimizer)
    return valid.x, rows[-1]["accuracy"]


def main() -> None:
    """Print the number of parameters and the validation accuracy of every network, and two receptive fields."""
    torch.manual_seed(0)
    for name, network, scale in [
        ("MLP", mlp(64, 32, 10), 1),
        ("LeNet", lenet(16), 2),
        ("AlexNet", alexnet(16, dropout=0.2), 2),  # 0.5 as in the paper needs more epochs
        ("VGG", vgg(8), 1),
        ("GoogLeNet", googlenet(), 1),
        ("ResNet", resnet(), 1),
        ("fully convolutional", fully_convolutional(), 1),
    ]:
        _, accuracy = train_on_digits(network, scale)
        print(f"{name:<20} {count_parameters(network):>6} parameters, accuracy {accuracy:.1%}")
    (field, two), (_, one) = receptive_field([3, 3], 64), receptive_field([5], 64)
    print(f"64 channels, receptive field {field}x{field}: two 3x3 have {two} weights, one 5x5 has {one}")


if __name__ == "__main__":
    main()
