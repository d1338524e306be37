"""The perceptron: weigh the signals, add them up, and answer 1 where the sum passes a threshold, else 0.

One perceptron is AND, NAND or OR, by hand-set weights or by learning; XOR takes two layers of them. The bias is minus
the threshold. `python -m kit.mechanism.perceptron` shows all of it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kit.mechanism.activations import step
from kit.mechanism.tensors import with_ones

INPUTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TRUTH = {
    "AND": torch.tensor([0.0, 0.0, 0.0, 1.0]),
    "NAND": torch.tensor([1.0, 1.0, 1.0, 0.0]),
    "OR": torch.tensor([0.0, 1.0, 1.0, 1.0]),
    "XOR": torch.tensor([0.0, 1.0, 1.0, 0.0]),
}


def perceptron(x: Tensor, weight: Tensor, bias: float) -> Tensor:
    """1 where x @ weight + bias > 0, else 0. x: (n, inputs), weight: (inputs,), the answers: (n,)."""
    if x.ndim != 2 or weight.shape != x.shape[1:]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}: expected (n, inputs) and (inputs,)"
        )
    return step(x @ weight + bias)


def and_gate(x: Tensor) -> Tensor:
    """1 where both inputs are 1: only two together pass 1.5. x: (n, 2), the answers: (n,)."""
    return perceptron(x, torch.tensor([1.0, 1.0]), -1.5)


def nand_gate(x: Tensor) -> Tensor:
    """Not AND: the same with every sign turned."""
    return perceptron(x, torch.tensor([-1.0, -1.0]), 1.5)


def or_gate(x: Tensor) -> Tensor:
    """1 where any input is 1: one alone passes 0.5."""
    return perceptron(x, torch.tensor([1.0, 1.0]), -0.5)


def xor_gate(x: Tensor) -> Tensor:
    """1 where exactly one input is 1: any (OR), but not both (NAND). Two layers, three perceptrons. x: (n, 2).

    One perceptron cannot do it. It would need bias <= 0 for (0, 0), w1 + bias > 0 and w2 + bias > 0 for the middle
    two, and w1 + w2 + bias <= 0 for (1, 1). The middle two add up to w1 + w2 + 2 bias > 0, the outer two to
    w1 + w2 + 2 bias <= 0: a contradiction. In a picture: no straight line parts the corners of a square crosswise.
    Source: M. Minsky and S. Papert, Perceptrons, 1969.
    """
    hidden = torch.stack([nand_gate(x), or_gate(x)], dim=1)
    return and_gate(hidden)


@dataclass(frozen=True)
class Learned:
    """What the rule came to: `weight` (inputs,), `bias`, and for each epoch the number of `mistakes`.

    history: (epochs + 1, inputs + 1), weight and bias before the first epoch and after each.
    """

    weight: Tensor
    bias: float
    mistakes: list[int]
    history: Tensor

    @property
    def settled(self) -> bool:
        """Whether the last epoch passed without a mistake: from there on nothing changes any more."""
        return self.mistakes[-1] == 0

    @property
    def circles(self) -> bool:
        """Whether an unsettled rule came back to weights it had before: it will then go round for ever."""
        return not self.settled and len(self.history.unique(dim=0)) < len(self.history)


def learn(x: Tensor, target: Tensor, epochs: int = 100, lr: float = 1.0) -> Learned:
    """The perceptron rule: after each mistake, w += lr * (target - answer) * x; until an epoch passes without one.

    x: (n, inputs), target: (n,) of 0 and 1. The bias learns as the weight of a constant input 1.
    If any weights are right, the rule finds some after finitely many mistakes (A. Novikoff, On convergence proofs for
    perceptrons, 1962). Source: F. Rosenblatt, The perceptron, Psychological Review 65, 1958.
    """
    if x.ndim != 2 or target.shape != x.shape[:1] or not len(x):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and target {tuple(target.shape)}: expected (n, inputs) and (n,), n > 0"
        )
    if not ((target == 0) | (target == 1)).all():
        raise ValueError(f"targets are {target.unique().tolist()}: expected 0 and 1")
    if epochs < 1 or not lr > 0:
        raise ValueError(f"epochs is {epochs} and lr is {lr}: expected at least 1, and a positive number")
    inputs = with_ones(x)
    weight = torch.zeros(inputs.shape[1], dtype=x.dtype)
    history, mistakes = [weight], []
    while len(mistakes) < epochs and 0 not in mistakes:
        wrong = 0
        for signal, wanted in zip(inputs, target, strict=True):
            error = wanted - step(signal @ weight)
            weight = weight + lr * error * signal
            wrong += int(error != 0)
        mistakes.append(wrong)
        history.append(weight)
    return Learned(weight[:-1], weight[-1].item(), mistakes, torch.stack(history))


def main() -> None:
    """Print the gates set by hand, the gates learned, and XOR both ways."""
    print("inputs", INPUTS.int().tolist())
    for gate in (and_gate, nand_gate, or_gate, xor_gate):
        print(f"{gate.__name__:9} by hand:", gate(INPUTS).int().tolist())
    for name, target in TRUTH.items():
        found = learn(INPUTS, target)
        how = "learned" if found.settled else "goes in circles for ever" if found.circles else "not settled"
        print(f"{name:4} mistakes in each epoch {found.mistakes[:8]}: {how}; {found.weight.tolist()} {found.bias}")


if __name__ == "__main__":
    main()
