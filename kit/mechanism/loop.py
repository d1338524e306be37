"""The training loop: predict, loss, gradient, step, zero. Everything else is built around these five lines.

Three forms, each containing the one before: `train_epoch` is the loop itself; `fit` trains and validates; `Learner`
calls back at every point where something may be added (a schedule, accumulation, clipping, a trace) and changes
nothing if nobody is called. Networks of our own layers and torch modules both go through it: they differ only in
who works out the gradient.

    python -m kit.mechanism.loop
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kit.mechanism.optimizers import Optimizer, set_momentum
from kit.mechanism.schedules import Schedule

Batches = Iterable[tuple[Tensor, Tensor]]


def by_hand(loss: Tensor, model: Any, loss_function: Any, divisor: float = 1.0) -> None:
    """The gradient of loss / divisor by the backward that each layer has written out."""
    model.backward(loss_function.backward() / divisor)


def by_autograd(loss: Any, model: Any, loss_function: Any, divisor: float = 1.0) -> None:
    """The gradient of loss / divisor by a computational graph: PyTorch's, or that of our own `Variable`s."""
    (loss / divisor).backward()


def train_epoch(
    model: Any, batches: Batches, loss_function: Callable, optimizer: Optimizer, backward: Callable = by_hand
) -> float:
    """Once through the batches; returns the mean loss of the examples."""
    total = count = 0
    for x, y in batches:
        prediction = model(x)
        loss = loss_function(prediction, y)
        backward(loss, model, loss_function)
        optimizer.step()
        optimizer.zero_grad()
        total, count = total + finite(loss) * len(x), count + len(x)
    return _mean(total, count)


@torch.no_grad()
def validate(model: Any, batches: Batches, loss_function: Callable) -> tuple[float, float]:
    """Mean loss and accuracy over batches that nothing is learned from."""
    model.eval()
    total = right = count = 0
    for x, y in batches:
        prediction = model(x)
        total, count = total + float(loss_function(prediction, y)) * len(x), count + len(x)
        right += (prediction.argmax(1) == y).sum().item()
    return _mean(total, count), right / count


def fit(
    epochs: int,
    model: Any,
    train: Batches,
    valid: Batches,
    loss_function: Callable,
    optimizer: Optimizer,
    backward: Callable = by_hand,
) -> list[dict[str, float]]:
    """Train and validate; one row an epoch: train_loss, valid_loss, accuracy."""
    rows = []
    for epoch in range(epochs):
        model.train()
        train_loss = train_epoch(model, train, loss_function, optimizer, backward)
        valid_loss, accuracy = validate(model, valid, loss_function)
        rows.append({"epoch": epoch, "train_loss": train_loss, "valid_loss": valid_loss, "accuracy": accuracy})
    return rows


def finite(loss: Any) -> float:
    """The loss as a number; an error where it has become NaN or infinite."""
    value = float(loss.data)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"the loss is {value}; lower the learning rate, or look for NaN in the batch")
    return value


def _mean(total: float, count: int) -> float:
    if count == 0:
        raise ValueError(
            "there was no batch; the data are empty or already used up (pass a DataLoader, not an iterator)"
        )
    return total / count


class SkipStep(Exception):
    """Raised by a callback in `before_step`: no step and no zero this time."""


class Callback:
    """Something that is called while a `Learner` trains; each method does nothing unless it is overridden."""

    def before_fit(self, learner: "Learner") -> None:
        """Before the first epoch."""

    def before_batch(self, learner: "Learner") -> None:
        """`learner.x` and `learner.y` are there."""

    def before_backward(self, learner: "Learner") -> None:
        """`learner.loss` is there; its gradient will be divided by `learner.divisor`, which is 1."""

    def before_step(self, learner: "Learner") -> None:
        """The gradients are there; `SkipStep` may be raised."""

    def after_step(self, learner: "Learner") -> None:
        """The parameters have moved, the gradients are still there."""

    def after_epoch(self, learner: "Learner") -> None:
        """`learner.rows[-1]` is there."""


class Learner:
    """A model, its batches, its loss and its optimiser, trained together.

    predict: how the model is called, where more is to be said (in half precision, say). `progress` goes from 0 to 1
    over a fit. It is set at the start of each epoch and then added up batch by batch, as fastai does: a sum of
    rounded shares is not the rounded quotient, and schedules read it.
    """

    def __init__(
        self,
        model: Any,
        train: Batches,
        valid: Batches,
        loss_function: Callable,
        optimizer: Optimizer,
        backward: Callable = by_autograd,
        predict: Callable = lambda model, x: model(x),
        callbacks: Sequence[Callback] = (),
    ):
        self.model, self.train, self.valid = model, train, valid
        self.loss_function, self.optimizer = loss_function, optimizer
        self.backward, self.predict, self.callbacks = backward, predict, list(callbacks)
        self.rows: list[dict[str, float]] = []
        self.current: list[Callback] = []

    def call(self, event: str) -> None:
        """Call everyone, in order."""
        for callback in [*self.callbacks, *self.current]:
            getattr(callback, event)(self)

    def fit(self, epochs: int, callbacks: Sequence[Callback] = ()) -> None:
        """Train for some epochs, with these callbacks too."""
        self.epochs, self.current = epochs, list(callbacks)
        self.call("before_fit")
        for self.epoch in range(epochs):
            self.progress = self.epoch / epochs
            self.model.train()
            losses = [self.one_batch(*batch) for batch in self.train]
            valid_loss, accuracy = validate(self.model, self.valid, self.loss_function)
            train_loss = _mean(sum(losses), len(losses))
            self.rows.append({"train_loss": train_loss, "valid_loss": valid_loss, "accuracy": accuracy})
            self.call("after_epoch")

    def one_batch(self, x: Tensor, y: Tensor) -> float:
        """Predict, loss, gradient, step, zero, and everyone called in between; returns the loss."""
        self.x, self.y = x, y
        self.call("before_batch")
        self.prediction = self.predict(self.model, x)
        self.loss = self.loss_function(self.prediction, y)
        value, self.divisor = finite(self.loss), 1.0
        self.call("before_backward")
        self.backward(self.loss, self.model, self.loss_function, self.divisor)
        try:
            self.call("before_step")
            self.optimizer.step()
            self.call("after_step")
            self.optimizer.zero_grad()
        except SkipStep:
            pass
        self.progress += 1.0 / (len(self.train) * self.epochs)
        return value


class Scheduled(Callback):
    """Set the learning rate of every group, and one momentum for all, before each batch."""

    def __init__(self, rates: Sequence[Schedule], momentum: Schedule | None = None):
        self.rates, self.momentum = rates, momentum

    def before_batch(self, learner: Learner) -> None:
        """From the learner's progress."""
        for group, rate in zip(learner.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate(learner.progress)
            if self.momentum is not None:
                set_momentum(group, self.momentum(learner.progress))


class Accumulate(Callback):
    """Add up the gradients of several batches until `examples` are together, then step: a large batch in pieces.

    Each loss counts by its share of the examples, so that the sum is the mean over all of them.
    """

    def __init__(self, examples: int):
        if examples < 1:
            raise ValueError(f"accumulate over {examples} examples: it takes at least one")
        self.examples, self.count = examples, 0

    def before_fit(self, learner: Learner) -> None:
        """Nothing is together yet."""
        self.count = 0

    def before_backward(self, learner: Learner) -> None:
        """The batch's share."""
        learner.divisor = self.examples / len(learner.x)

    def before_step(self, learner: Learner) -> None:
        """Wait until there are enough."""
        self.count += len(learner.x)
        if self.count < self.examples:
            raise SkipStep
        self.count = 0


class Clip(Callback):
    """Shorten the gradient, taken as one long vector, to `length` where it is longer (Pascanu et al., 2013)."""

    def __init__(self, length: float):
        if not length > 0:
            raise ValueError(f"clip to length {length}: it must be above 0")
        self.length = length

    def before_step(self, learner: Learner) -> None:
        """All gradients times the same factor; the direction stays."""
        grads = [p.grad for p in learner.model.parameters() if p.grad is not None]
        total = torch.stack([grad.norm() for grad in grads]).norm()
        factor = (self.length / (total + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factor)


def main() -> None:
    """A network of our own layers learns scikit-learn's digits."""
    from sklearn.datasets import load_digits

    from kit.mechanism.batches import DataLoader, Dataset
    from kit.mechanism.layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy
    from kit.mechanism.optimizers import SGD

    torch.manual_seed(1)
    digits = load_digits()
    data = Dataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
    train, valid = data.split(0.25)
    network = Sequential(Linear(64, 50), ReLU(), Linear(50, 10))
    batches = DataLoader(train, 32, shuffle=True), DataLoader(valid, 256)
    for row in fit(10, network, *batches, SoftmaxCrossEntropy(), SGD(network.parameters(), lr=0.1, momentum=0.9)):
        print(
            "epoch {epoch}: train loss {train_loss:.3f}, valid loss {valid_loss:.3f}, accuracy {accuracy:.3f}".format(
                **row
            )
        )


if __name__ == "__main__":
    main()
