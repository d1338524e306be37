"""Overfitting: made on purpose, then treated with weight decay, dropout and more data.

A network with more parameters than examples can learn the examples by heart, mistakes and all: the loss on them goes
to 0 while the loss on everything else grows. Each remedy makes learning by heart harder or worth less. Both losses are
kept step by step, because the distance between them is how overfitting is seen.

    python -m kit.mechanism.overfitting
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kit.mechanism.layers import Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.losses import accuracy
from kit.mechanism.optimizers import SGD

Data = tuple[Tensor, Tensor]


@dataclass
class Curves:
    """What one training showed, every few steps; losses are mean cross entropies, errors shares between 0 and 1."""

    steps: list[int] = field(default_factory=list)
    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    training_error: list[float] = field(default_factory=list)
    validation_error: list[float] = field(default_factory=list)

    @property
    def gap(self) -> float:
        """The validation loss less the training loss at the end: how much was learned that holds only here."""
        return self.validation_loss[-1] - self.training_loss[-1]

    def look(self, step: int, network: Sequential, training: Data, validation: Data) -> None:
        """Add a point to all four curves, with dropout switched off for both sets, as when predicting."""
        network.eval()
        self.steps.append(step)
        for (x, y), losses, errors in (
            (training, self.training_loss, self.training_error),
            (validation, self.validation_loss, self.validation_error),
        ):
            logits = network(x)
            losses.append(float(SoftmaxCrossEntropy()(logits, y)))
            errors.append(1 - accuracy(logits, y))
        network.train()


def with_wrong_labels(y: Tensor, share: float, classes: int, generator: torch.Generator | None = None) -> Tensor:
    """A copy of the labels (n,), each replaced by one of the other classes with probability `share`.

    Every real collection has some. There is nothing to understand in them: they can only be learned by heart.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} of wrong labels: expected a number from 0 to 1")
    wrong = torch.rand(len(y), generator=generator) < share
    shift = torch.randint(1, classes, (len(y),), generator=generator)
    return torch.where(wrong, (y + shift) % classes, y)


def wide_network(
    inputs: int, width: int, classes: int, dropout: float = 0.0, generator: torch.Generator | None = None
) -> Sequential:
    """(n, inputs) -> (n, classes) through one hidden layer that is far too wide for a few examples."""
    first, last = Linear(inputs, width, generator), Linear(width, classes, generator)
    return Sequential(first, ReLU(), Dropout(dropout, generator), last)


def train(
    network: Sequential, training: Data, validation: Data, steps: int, weight_decay: float = 0.0, every: int = 20
) -> Curves:
    """Descend on the whole training set, `steps` times; returns the curves.

    x: (n, inputs), y: (n,). Weight decay is coupled: weight_decay / 2 times the squared weights joins the loss.
    """
    if len(training[0]) == 0 or len(validation[0]) == 0:
        raise ValueError(
            f"{len(training[0])} training and {len(validation[0])} validation examples: expected some of both"
        )
    loss, curves = SoftmaxCrossEntropy(), Curves()
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    x, y = training
    for step in range(steps):
        if step % every == 0:
            curves.look(step, network, training, validation)
        optimizer.zero_grad()
        loss(network(x), y)
        network.backward(loss.backward())
        optimizer.step()
    curves.look(steps, network, training, validation)
    return curves


def remedies(
    few: Data, more: Data, validation: Data, width: int = 256, steps: int = 300, seed: int = 0
) -> dict[str, Curves]:
    """Train the same wide network without a remedy and with each; the curves by name.

    few, more, validation: (x (n, inputs), y (n,)), the labels 0 to classes - 1. All four begin with the same weights
    and take the same number of steps, so that nothing differs but the remedy.
    Sources: weight decay, Krogh and Hertz, 1992; dropout, Srivastava et al., 2014.
    """
    inputs, classes = few[0].shape[1], 1 + int(torch.cat([few[1], more[1], validation[1]]).max())

    def network(dropout: float = 0.0) -> Sequential:
        return wide_network(inputs, width, classes, dropout, torch.Generator().manual_seed(seed))

    return {
        "nothing": train(network(), few, validation, steps),
        "weight decay": train(network(), few, validation, steps, weight_decay=0.01),
        "dropout": train(network(dropout=0.5), few, validation, steps),
        "more data": train(network(), more, validation, steps),
    }


def split_for_overfitting(
    x: Tensor, y: Tensor, seed: int = 0, few: int = 100, more: int = 600
) -> tuple[Data, Data, Data]:
    """Few and more training examples, a fifth of them labelled wrongly, and 600 others with true labels to validate.

    x (n, inputs), y (n,); the few are among the more. The wrong labels are there on purpose: with true ones there is
    nothing wrong to learn by heart, the gap is a third as wide, and only more data lowers the error by much.
    """
    if len(x) < more + 600:
        raise ValueError(f"{len(x)} examples: expected at least {more + 600}, {more} to train and 600 to validate")
    dice = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=dice)
    training, validation = order[:more], order[-600:]
    labels = with_wrong_labels(y[training], 0.2, 1 + int(y.max()), dice)
    return (x[training[:few]], labels[:few]), (x[training], labels), (x[validation], y[validation])


def table(seeds: Sequence[int], run: Callable[[int], dict[str, Curves]]) -> str:
    """The end of each curve as lines of text, averaged over the seeds."""
    runs = [run(seed) for seed in seeds]
    lines = [f"{'':12}  training loss  validation loss    gap  validation error"]
    for name in runs[0]:
        ends = [
            (c[name].training_loss[-1], c[name].validation_loss[-1], c[name].gap, c[name].validation_error[-1])
            for c in runs
        ]
        a, b, gap, error = (sum(column) / len(runs) for column in zip(*ends, strict=True))
        lines.append(f"{name:12}  {a:13.3f}  {b:15.3f}  {gap:5.3f}  {error:16.1%}")
    return "\n".join(lines)


def main() -> None:
    """100 digits, 19 000 parameters: what each remedy does to the gap, over three seeds."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    print(table(range(3), lambda seed: remedies(*split_for_overfitting(x, y, seed), seed=seed)))


if __name__ == "__main__":
    main()
