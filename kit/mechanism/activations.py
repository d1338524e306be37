"""Activations: what stands between two layers (step, sigmoid, tanh, relu) or after the last one (identity, softmax).

Without one, a stack of layers is worth no more than a single layer: `collapse` computes that layer. See all of it with
`python -m kit.mechanism.activations`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0; any shape. The perceptron's answer. Its slope is 0, so no gradient can teach it."""
    return (x > 0).to(x.dtype)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), between 0 and 1; any shape. A step made smooth; the output of a yes-or-no question.

    Where exp(-x) overflows to infinity, 1 / infinity is still the right answer, 0.
    """
    return 1 / (1 + (-x).exp())


def tanh(x: Tensor) -> Tensor:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)) = 2 sigmoid(2x) - 1, between -1 and 1; any shape.

    The formula as it stands gives infinity / infinity for large x; torch's own `tanh` does not.
    """
    return x.tanh()


def relu(x: Tensor) -> Tensor:
    """max(0, x); any shape. Source: V. Nair and G. Hinton, Rectified linear units improve RBMs, ICML 2010."""
    return x.relu()


def identity(x: Tensor) -> Tensor:
    """x itself: the output of a regression, whose answer may be any number."""
    return x


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`: scores of any shape become probabilities that sum to 1.

    Subtracting the largest score multiplies numerator and denominator by the same number, exp(-max), so that the result
    stays what it was, while the largest exponent becomes 0 and nothing overflows. The order of the scores stays too:
    the best class can be read from the scores alone, and softmax is needed for training only.
    Source: J. Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990.
    """
    powers = (x - x.amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)


def naive_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """The formula as it is written: float32 overflows from x = 89 on, and infinity / infinity is NaN. Never use it."""
    return x.exp() / x.exp().sum(dim, keepdim=True)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """log(softmax(x)) = x - max - log(sum(exp(x - max))): never log(0), though a probability may round to 0."""
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def collapse(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The one layer (weight, bias) that does the work of a whole stack x -> x @ weight.T + bias without activations.

    Each weight is (outputs, inputs), each bias (outputs,). W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2): a line of
    a line is a line. Raises `ValueError` where there is no layer, or one does not fit the layer below it.
    """
    if not layers:
        raise ValueError("no layers to collapse: give at least one (weight, bias)")
    weight, bias = layers[0]
    for above, above_bias in layers[1:]:
        if above.shape[1] != weight.shape[0]:
            raise ValueError(
                f"a layer of shape {tuple(above.shape)} does not fit on one of shape {tuple(weight.shape)}: "
                f"expected {weight.shape[0]} inputs, got {above.shape[1]}"
            )
        weight, bias = above @ weight, above @ bias + above_bias
    return weight, bias


def main() -> None:
    """Print the curves as numbers, softmax with and without its guard, and a stack that collapses."""
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    print(f"{'x':8}", *(f"{value:6.2f}" for value in x))
    for function in (step, sigmoid, tanh, relu, identity, softmax):
        print(f"{function.__name__:8}", *(f"{value:6.2f}" for value in function(x)))
    large = torch.tensor([1000.0, 1001.0, 1002.0])
    print("scores of about 1000, softmax as written:", naive_softmax(large).tolist())
    print("the same, largest score subtracted:      ", [round(p, 4) for p in softmax(large).tolist()])
    dice = torch.Generator().manual_seed(0)
    layers = [
        (torch.randn(outputs, inputs, generator=dice), torch.randn(outputs, generator=dice))
        for inputs, outputs in [(4, 8), (8, 8), (8, 2)]
    ]
    print("three layers without activations are one of shape", tuple(collapse(layers)[0].shape))


if __name__ == "__main__":
    main()
