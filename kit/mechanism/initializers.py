"""Initializers: the scale of the initial weights decides whether signals and gradients pass through many layers.

With zeros all units stay identical. With normal(1) sigmoid outputs saturate at 0 and 1; with normal(0.01) they are all
near 0.5. Xavier and He keep the variance of the outputs the same from layer to layer.
Run `python -m kit.mechanism.initializers` to see histograms of the outputs.
"""

from collections.abc import Callable, Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from kit.mechanism.activations import relu, sigmoid
from kit.mechanism.gradient import numerical_gradient

Shape = Sequence[int]


def zeros(shape: Shape) -> Tensor:
    """Return zeros: correct for a bias, wrong for a weight (see `train_two_layers`)."""
    return torch.zeros(tuple(shape))


def normal(shape: Shape, std: float = 0.01) -> Tensor:
    """Return normally distributed numbers with mean 0 and standard deviation `std`."""
    if not std > 0:
        raise ValueError(f"std is {std}: expected a positive number")
    return torch.randn(tuple(shape)) * std


def xavier(shape: Shape) -> Tensor:
    """Return weights with standard deviation 1 / sqrt(fan_in), for sigmoid and tanh.

    A sum of fan_in products then has the same variance as the inputs. Source: Y. LeCun et al., Efficient backprop,
    1998. X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010, use
    sqrt(2 / (fan_in + fan_out)), which also considers the gradients; for square layers both are the same.
    """
    return normal(shape, 1 / sqrt(fan_in(shape)))


def he(shape: Shape) -> Tensor:
    """Return weights with standard deviation sqrt(2 / fan_in), for relu, which sets half of its inputs to 0.

    Source: K. He et al., Delving deep into rectifiers, ICCV 2015.
    """
    return normal(shape, sqrt(2 / fan_in(shape)))


def fan_in(shape: Shape) -> int:
    """Return the number of inputs of one unit: inputs for (outputs, inputs), inputs * h * w for a convolution."""
    if len(shape) < 2 or prod(shape) <= 0:
        raise ValueError(f"a weight of shape {tuple(shape)} has no fan-in: expected (outputs, inputs, ...)")
    return prod(shape[1:])


def activations_by_layer(
    x: Tensor, initializer: Callable[[Shape], Tensor], activation: Callable[[Tensor], Tensor], layers: int = 5
) -> list[Tensor]:
    """Pass x (n, units) through `layers` square layers; return the outputs of each, a list of (n, units)."""
    outputs = []
    for _ in range(layers):
        x = activation(x @ initializer((x.shape[1], x.shape[1])).T)
        outputs.append(x)
    return outputs


def train_two_layers(hidden: Tensor, output: Tensor, x: Tensor, target: Tensor, lr: float, steps: int) -> Tensor:
    """Minimise the squared error of sigmoid(x @ hidden.T) @ output.T by gradient descent; return the hidden weights.

    hidden: (units, inputs), output: (1, units), x: (n, inputs), target: (n, 1), all float64. Units with the same
    initial weights get the same gradient, so they stay identical and the network can do no more than one unit.
    """
    hidden, output = hidden.clone(), output.clone()

    def loss(_: Tensor) -> Tensor:
        return ((sigmoid(x @ hidden.T) @ output.T - target) ** 2).mean()

    for _ in range(steps):
        gradients = [numerical_gradient(loss, weight) for weight in (hidden, output)]
        for weight, gradient in zip((hidden, output), gradients, strict=True):
            weight -= lr * gradient
    return hidden


def text_histogram(values: Tensor, low: float, high: float, bins: int = 20) -> str:
    """Return a histogram as one line of text, one character for each bin: a space if empty, a full block if highest."""
    counts = torch.histc(values.float(), bins, low, high)
    return "".join(" ▁▂▃▄▅▆▇█"[int(level)] for level in (8 * counts / counts.max().clamp(min=1)).ceil())


def main() -> None:
    """Print the outputs of five sigmoid layers and of five relu layers for each initializer."""
    torch.manual_seed(0)
    x = torch.randn(1000, 100)
    initializers = {"normal(1)": lambda shape: normal(shape, 1.0), "normal(0.01)": normal, "xavier": xavier, "he": he}
    print("sigmoid, layers 1 to 5: histograms of the outputs from 0 to 1")
    for name, initializer in initializers.items():
        outputs = activations_by_layer(x, initializer, sigmoid)
        print(f"{name:13}", *(f"|{text_histogram(output, 0.0, 1.0)}|" for output in outputs))
    print("relu, layers 1 to 5: root mean square of the outputs")
    for name, initializer in initializers.items():
        outputs = activations_by_layer(x, initializer, relu)
        print(f"{name:13}", *(f"{output.square().mean().sqrt():9.2g}" for output in outputs))


if __name__ == "__main__":
    main()
