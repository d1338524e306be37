"""The perceptron: a weighted sum of the inputs plus a bias; the output is 1 where the sum is above 0, else 0.

The bias is minus the threshold of the weighted sum. One perceptron can compute AND, NAND and OR, with weights set by
hand or learned; XOR needs two layers. Run `python -m kit.mechanism.perceptron` to see it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kit.mechanism.activations import step
from kit.mechanism.tensors import append_ones

INPUTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TRUTH = {
    "AND": torch.tensor([0.0, 0.0, 0.0, 1.0]),
    "NAND": torch.tensor([1.0, 1.0, 1.0, 0.0]),
    "OR": torch.tensor([0.0, 1.0, 1.0, 1.0]),
    "XOR": torch.tensor([0.0, 1.0, 1.0, 0.0]),
}


def perceptron(x: Tensor, weight: Tensor, bias: float) -> Tensor:
    """Return 1 where x @ weight + bias > 0, else 0. x: (n, inputs), weight: (inputs,), result: (n,)."""
    if x.ndim != 2 or weight.shape != x.shape[1:]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}: expected (n, inputs) and (inputs,)"
        )
    return step(x @ weight + bias)


def and_gate(x: Tensor) -> Tensor:
    """Return 1 where both inputs are 1: only 1 + 1 is above the threshold of 1.5. x: (n, 2), result: (n,)."""
    return perceptron(x, torch.tensor([1.0, 1.0]), -1.5)


def nand_gate(x: Tensor) -> Tensor:
    """Return the opposite of AND: the same weights and bias with all signs reversed."""
    return perceptron(x, torch.tensor([-1.0, -1.0]), 1.5)


def or_gate(x: Tensor) -> Tensor:
    """Return 1 where at least one input is 1: a single 1 is above the threshold of 0.5."""
    return perceptron(x, torch.tensor([1.0, 1.0]), -0.5)


def xor_gate(x: Tensor) -> Tensor:
    """Return 1 where exactly one input is 1: OR and NAND in the first layer, AND in the second. x: (n, 2).

    One perceptron cannot compute XOR. It would need

        (0, 0) -> 0:  bias <= 0             (0, 1) -> 1:  w2 + bias > 0
        (1, 1) -> 0:  w1 + w2 + bias <= 0   (1, 0) -> 1:  w1 + bias > 0

    The sum of the left column is w1 + w2 + 2 bias <= 0, that of the right column is w1 + w2 + 2 bias > 0: a
    contradiction. No straight line separates the two classes. Source: M. Minsky and S. Papert, Perceptrons, 1969.
    """
    hidden = torch.stack([nand_gate(x), or_gate(x)], dim=1)
    return and_gate(hidden)


@dataclass(frozen=True)
class TrainedPerceptron:
    """What `train_perceptron` returns: `weight` (inputs,), `bias`, and the number of `mistakes` in each epoch."""

    weight: Tensor
    bias: float
    mistakes: list[int]

    @property
    def converged(self) -> bool:
        """Whether the last epoch had no mistake; the weights would not change any more."""
        return self.mistakes[-1] == 0


def train_perceptron(x: Tensor, target: Tensor, epochs: int = 100, lr: float = 1.0) -> TrainedPerceptron:
    """Train with the perceptron rule: after each sample, w += lr * (target - output) * x.

    x: (n, inputs), target: (n,) of 0 and 1. Stops after the first epoch without a mistake. The bias is trained as the
    weight of a constant input 1. If the classes are linearly separable, the rule converges after a finite number of
    mistakes (A. Novikoff, On convergence proofs for perceptrons, 1962); otherwise it never does.
    Source: F. Rosenblatt, The perceptron, Psychological Review 65, 1958.
    """
    if x.ndim != 2 or target.shape != x.shape[:1] or not len(x):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and target {tuple(target.shape)}: expected (n, inputs) and (n,), n > 0"
        )
    if not ((target == 0) | (target == 1)).all():
        raise ValueError(f"targets are {target.unique().tolist()}: expected 0 and 1")
    if epochs < 1 or not lr > 0:
        raise ValueError(f"epochs is {epochs} and lr is {lr}: expected at least 1, and a positive number")
    inputs, mistakes = append_ones(x), []
    weight = torch.zeros(inputs.shape[1], dtype=x.dtype)
    while len(mistakes) < epochs and 0 not in mistakes:
        wrong = 0
        for row, wanted in zip(inputs, target, strict=True):
            error = wanted - step(row @ weight)
            weight = weight + lr * error * row
            wrong += int(error != 0)
        mistakes.append(wrong)
    return TrainedPerceptron(weight[:-1], weight[-1].item(), mistakes)


def main() -> None:
    """Print the gates with weights set by hand, then the same gates learned; XOR does not converge."""
    print("inputs", INPUTS.int().tolist())
    for gate in (and_gate, nand_gate, or_gate, xor_gate):
        print(f"{gate.__name__:9} by hand:", gate(INPUTS).int().tolist())
    for name, target in TRUTH.items():
        trained = train_perceptron(INPUTS, target)
        state = "converged" if trained.converged else f"not converged after {len(trained.mistakes)} epochs"
        print(f"{name:4} mistakes per epoch {trained.mistakes[:8]}: {state}; {trained.weight.tolist()} {trained.bias}")


if __name__ == "__main__":
    main()
