"""Initialisers: the weights that a network starts from decide whether any signal reaches its last layer.

Zeros keep all units alike for ever; normal(1) drives sigmoids to 0 and 1, normal(0.01) holds them all at one half;
Xavier and He keep the spread from layer to layer. `python -m kit.mechanism.initializers` prints it as histograms.
"""

from collections.abc import Callable, Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from kit.mechanism.activations import relu, sigmoid
from kit.mechanism.gradient import numerical_gradient

Shape = Sequence[int]


def zeros(shape: Shape, *, generator: torch.Generator | None = None) -> Tensor:
    """All zeros: right for a bias, fatal for a weight (see `train_two_layers`). The generator is not used."""
    return torch.zeros(tuple(shape))


def normal(shape: Shape, std: float = 0.01, *, generator: torch.Generator | None = None) -> Tensor:
    """Random numbers around 0 with standard deviation `std`, whatever the size of the layer."""
    if not std > 0:
        raise ValueError(f"std is {std}: expected a positive number")
    return torch.randn(tuple(shape), generator=generator) * std


def xavier(shape: Shape, *, generator: torch.Generator | None = None) -> Tensor:
    """Standard deviation 1 / sqrt(fan_in): a sum of fan_in terms keeps the spread of its inputs. For sigmoid and tanh.

    Source: Y. LeCun et al., Efficient backprop, 1998, for this form; X. Glorot and Y. Bengio, Understanding the
    difficulty of training deep feedforward neural networks, AISTATS 2010, take sqrt(2 / (fan_in + fan_out)), which
    weighs the way back too and is the same for square layers.
    """
    return normal(shape, 1 / sqrt(fan_in(shape)), generator=generator)


def he(shape: Shape, *, generator: torch.Generator | None = None) -> Tensor:
    """Standard deviation sqrt(2 / fan_in): relu sets half of its inputs to 0, and the factor 2 makes up for it.

    Source: K. He et al., Delving deep into rectifiers, ICCV 2015.
    """
    return normal(shape, sqrt(2 / fan_in(shape)), generator=generator)


def fan_in(shape: Shape) -> int:
    """How many numbers flow into one unit: inputs of (outputs, inputs), inputs * h * w of (outputs, inputs, h, w)."""
    if len(shape) < 2 or prod(shape) <= 0:
        raise ValueError(f"a weight of shape {tuple(shape)} has no fan-in: expected (outputs, inputs, ...)")
    return prod(shape[1:])


def activations_by_layer(
    x: Tensor, initial: Callable[[Shape], Tensor], activation: Callable[[Tensor], Tensor], layers: int = 5
) -> list[Tensor]:
    """Send x (n, units) through `layers` new square layers and keep what comes out of each: a list of (n, units)."""
    outputs = []
    for _ in range(layers):
        x = activation(x @ initial((x.shape[1], x.shape[1])).T)
        outputs.append(x)
    return outputs


def train_two_layers(hidden: Tensor, output: Tensor, x: Tensor, target: Tensor, lr: float, steps: int) -> Tensor:
    """Gradient descent on the squared error of sigmoid(x @ hidden.T) @ output.T; returns the hidden weights.

    hidden: (units, inputs), output: (1, units), x: (n, inputs), target: (n, 1), all float64. Units that start alike
    get the same gradient and stay alike for ever: a hundred of them do no more than one.
    """
    hidden, output = hidden.clone(), output.clone()

    def loss(_: Tensor) -> Tensor:
        return ((sigmoid(x @ hidden.T) @ output.T - target) ** 2).mean()

    for _ in range(steps):
        gradients = [numerical_gradient(loss, weight) for weight in (hidden, output)]
        for weight, gradient in zip((hidden, output), gradients, strict=True):
            weight -= lr * gradient
    return hidden


def bars(values: Tensor, low: float, high: float, bins: int = 20) -> str:
    """A histogram in one line of text: a blank for an empty bin, a full block for the fullest."""
    counts = torch.histc(values.float(), bins, low, high)
    return "".join(" ▁▂▃▄▅▆▇█"[int(level)] for level in (8 * counts / counts.max().clamp(min=1)).ceil())


def main() -> None:
    """Print what comes out of five layers of sigmoid, and of relu, for each way to begin."""
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 100, generator=dice)
    ways = {
        "normal(1)": lambda shape: normal(shape, 1.0, generator=dice),
        "normal(0.01)": lambda shape: normal(shape, 0.01, generator=dice),
        "xavier": lambda shape: xavier(shape, generator=dice),
        "he": lambda shape: he(shape, generator=dice),
    }
    print("sigmoid, layers 1 to 5: histograms of the outputs between 0 and 1")
    for name, initial in ways.items():
        print(f"{name:13}", *(f"|{bars(output, 0.0, 1.0)}|" for output in activations_by_layer(x, initial, sigmoid)))
    print("relu, layers 1 to 5: root of the mean square of the outputs")
    for name, initial in ways.items():
        outputs = activations_by_layer(x, initial, relu)
        print(f"{name:13}", *(f"{output.square().mean().sqrt():9.2g}" for output in outputs))


if __name__ == "__main__":
    main()
