"""Overfitting: caused on purpose, then reduced by weight decay, dropout and more data.

A network with many more parameters than examples can memorise the examples, wrong labels included: the training loss
goes to 0 while the validation loss rises. The difference between the two losses measures overfitting.
Run `python -m kit.mechanism.overfitting` to compare the remedies.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kit.mechanism.layers import Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.loop import train_epoch, validate
from kit.mechanism.optimizers import SGD

Data = tuple[Tensor, Tensor]


@dataclass
class Curves:
    """Mean cross entropy on both sets, and the validation error rate, every 20 steps, in evaluation mode."""

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_error: list[float] = field(default_factory=list)

    @property
    def gap(self) -> float:
        """Validation loss minus training loss at the end."""
        return self.validation_loss[-1] - self.training_loss[-1]


def flip_labels(y: Tensor, probability: float, classes: int, generator: torch.Generator | None = None) -> Tensor:
    """Replace each label of y (n,) by another class with this probability, as labelling mistakes do."""
    wrong = torch.rand(len(y), generator=generator) < probability
    shift = torch.randint(1, classes, (len(y),), generator=generator)
    return torch.where(wrong, (y + shift) % classes, y)


def split_for_overfitting(x: Tensor, y: Tensor, seed: int = 0) -> tuple[Data, Data, Data]:
    """Return 100 and 600 training examples with 20 % wrong labels, and 600 others with correct labels for validation.

    x: (n, inputs), y: (n,). The 100 are part of the 600. Without wrong labels a network that memorises the examples
    still classifies others well, and the gap is a third as large.
    """
    if len(x) < 1200:
        raise ValueError(f"{len(x)} examples: expected at least 1200, 600 for training and 600 for validation")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    training, validation = order[:600], order[-600:]
    labels = flip_labels(y[training], 0.2, 1 + int(y.max()), generator)
    return (x[training[:100]], labels[:100]), (x[training], labels), (x[validation], y[validation])


def train(network: Sequential, training: Data, validation: Data, steps: int = 300, weight_decay: float = 0.0) -> Curves:
    """Train with gradient descent on the whole training set x (n, inputs), y (n,); return the curves.

    Weight decay is coupled: weight_decay / 2 times the sum of squared weights is added to the loss.
    """
    loss, curves = SoftmaxCrossEntropy(), Curves()
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    for step in range(steps + 1):
        if step:
            train_epoch(network.train(), [training], loss, optimizer)
        if step % 20 == 0:
            curves.training_loss.append(validate(network, [training], loss)[0])
            validation_loss, accuracy = validate(network, [validation], loss)
            curves.validation_loss.append(validation_loss)
            curves.validation_error.append(1 - accuracy)
    return curves


def compare_remedies(few: Data, more: Data, validation: Data, width: int = 256, seed: int = 0) -> dict[str, Curves]:
    """Train a network with one wide hidden layer without and with each remedy; return the curves by name.

    All four start with the same weights and take the same number of steps.
    Sources: weight decay, Krogh and Hertz, 1992; dropout, Srivastava et al., 2014.
    """
    inputs, classes = few[0].shape[1], 1 + int(validation[1].max())

    def network(dropout: float = 0.0) -> Sequential:
        torch.manual_seed(seed)
        return Sequential(Linear(inputs, width), ReLU(), Dropout(dropout), Linear(width, classes))

    with torch.random.fork_rng(devices=[]):
        return {
            "none": train(network(), few, validation),
            "weight decay": train(network(), few, validation, weight_decay=0.01),
            "dropout": train(network(dropout=0.5), few, validation),
            "more data": train(network(), more, validation),
        }


def main() -> None:
    """Print the losses of a network with 19 000 parameters on 100 digits for each remedy, as means of three seeds."""
    from kit.mechanism.batches import load_digits

    digits = load_digits()
    x, y = digits.x.flatten(1), digits.y
    runs = [compare_remedies(*split_for_overfitting(x, y, seed), seed=seed) for seed in range(3)]
    print("remedy        training loss  validation loss    gap  validation error")
    for name in runs[0]:
        curves = [run[name] for run in runs]
        ends = [(c.training_loss[-1], c.validation_loss[-1], c.gap, c.validation_error[-1]) for c in curves]
        training, validation, gap, error = torch.tensor(ends).mean(0)
        print(f"{name:12}  {training:13.3f}  {validation:15.3f}  {gap:5.3f}  {error:16.1%}")


if __name__ == "__main__":
    main()
