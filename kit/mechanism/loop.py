"""The training loop: for each batch, predict, compute the loss, compute the gradient, update, set the gradient to zero.

Three forms, each an extension of the one before: `train_epoch` is the loop alone; `fit` trains and validates; `Learner`
also calls callbacks (schedules, gradient accumulation, clipping, a trace), as fastai's Learner does. Networks of our
layers and torch modules use the same loop with different `backward` functions.
Run `python -m kit.mechanism.loop` to train on digits.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kit.mechanism.optimizers import Optimizer, set_momentum
from kit.mechanism.schedules import Schedule

Batches = Iterable[tuple[Tensor, Tensor]]


def backward_by_hand(loss: Tensor, model: Any, loss_func: Any, divisor: float = 1.0) -> None:
    """Compute the gradient of loss / divisor with the `backward` of each layer."""
    model.backward(loss_func.backward() / divisor)


def backward_by_autograd(loss: Any, model: Any, loss_func: Any, divisor: float = 1.0) -> None:
    """Compute the gradient of loss / divisor with a computational graph: PyTorch's or that of our `Variable`s."""
    (loss / divisor).backward()


def train_epoch(
    model: Any, batches: Batches, loss_func: Callable, optimizer: Optimizer, backward: Callable = backward_by_hand
) -> float:
    """Train on every batch once; return the mean loss over the examples."""
    total = count = 0
    for x, y in batches:
        prediction = model(x)
        loss = loss_func(prediction, y)
        backward(loss, model, loss_func)
        optimizer.step()
        optimizer.zero_grad()
        total, count = total + check_finite(loss) * len(x), count + len(x)
    return _mean(total, count)


@torch.no_grad()
def validate(model: Any, batches: Batches, loss_func: Callable) -> tuple[float, float]:
    """Return mean loss and accuracy over all batches, in evaluation mode and without training; y: (n,) or (n, h, w)."""
    model.eval()
    total = correct = count = labels = 0
    for x, y in batches:
        prediction = model(x)
        total, count = total + float(loss_func(prediction, y)) * len(x), count + len(x)
        correct, labels = correct + (prediction.argmax(1) == y).sum().item(), labels + y.numel()
    return _mean(total, count), correct / labels


def fit(
    epochs: int,
    model: Any,
    train: Batches,
    valid: Batches,
    loss_func: Callable,
    optimizer: Optimizer,
    backward: Callable = backward_by_hand,
) -> list[dict[str, float]]:
    """Train and validate; return for each epoch {"epoch", "train_loss", "valid_loss", "accuracy"}."""
    rows = []
    for epoch in range(epochs):
        model.train()
        train_loss = train_epoch(model, train, loss_func, optimizer, backward)
        valid_loss, accuracy = validate(model, valid, loss_func)
        rows.append({"epoch": epoch, "train_loss": train_loss, "valid_loss": valid_loss, "accuracy": accuracy})
    return rows


def check_finite(loss: Any) -> float:
    """Return the loss as a number; raise `ValueError` if it is NaN or infinite."""
    value = float(loss.data)
    if not math.isfinite(value):
        raise ValueError(f"the loss is {value}; lower the learning rate, or look for NaN in the batch")
    return value


def _mean(total: float, count: int) -> float:
    if count == 0:
        raise ValueError("there was no batch: the data are empty, or an iterator that is used up; pass a DataLoader")
    return total / count


class SkipStep(Exception):
    """Raised by a callback in `before_step` to skip the update and to keep the gradients."""


class Callback:
    """Base class of callbacks: methods that a `Learner` calls during training, which do nothing unless overridden."""

    def before_fit(self, learner: "Learner") -> None:
        """Called before the first epoch."""

    def before_batch(self, learner: "Learner") -> None:
        """Called when `learner.x` and `learner.y` are set."""

    def before_backward(self, learner: "Learner") -> None:
        """Called when `learner.loss` is set; the loss will be divided by `learner.divisor`, which is 1."""

    def before_step(self, learner: "Learner") -> None:
        """Called when the gradients are computed; may raise `SkipStep`."""

    def after_step(self, learner: "Learner") -> None:
        """Called after the update; the gradients are still there."""

    def after_epoch(self, learner: "Learner") -> None:
        """Called when `learner.rows[-1]` is set."""


class Learner:
    """A model, its data, loss and optimizer, and the loop that trains it with callbacks.

    predict: how to call the model, for example under autocast. progress: from 0 to 1 over a fit, for schedules. As in
    fastai it is set at the start of each epoch and then increased batch by batch, which rounds differently from a
    division; equal bits need the same rounding.
    """

    def __init__(
        self,
        model: Any,
        train: Batches,
        valid: Batches,
        loss_func: Callable,
        optimizer: Optimizer,
        backward: Callable = backward_by_autograd,
        predict: Callable = lambda model, x: model(x),
    ):
        self.model, self.train, self.valid = model, train, valid
        self.loss_func, self.optimizer = loss_func, optimizer
        self.backward, self.predict = backward, predict
        self.rows: list[dict[str, float]] = []
        self.callbacks: Sequence[Callback] = ()

    def call(self, event: str) -> None:
        """Call this method of every callback, in order."""
        for callback in self.callbacks:
            getattr(callback, event)(self)

    def fit(self, epochs: int, callbacks: Sequence[Callback] = ()) -> None:
        """Train and validate for some epochs; adds a row for each to `rows`."""
        self.epochs, self.callbacks = epochs, callbacks
        self.call("before_fit")
        for self.epoch in range(epochs):
            self.progress = self.epoch / epochs
            self.model.train()
            total = count = 0
            for x, y in self.train:
                total, count = total + self.one_batch(x, y) * len(x), count + len(x)
            valid_loss, accuracy = validate(self.model, self.valid, self.loss_func)
            self.rows.append({"train_loss": _mean(total, count), "valid_loss": valid_loss, "accuracy": accuracy})
            self.call("after_epoch")
        self.optimizer.zero_grad()  # of an accumulated group that was not completed

    def one_batch(self, x: Tensor, y: Tensor) -> float:
        """Train on one batch with all callbacks; return the loss."""
        self.x, self.y = x, y
        self.call("before_batch")
        self.prediction = self.predict(self.model, x)
        self.loss = self.loss_func(self.prediction, y)
        value, self.divisor = check_finite(self.loss), 1.0
        self.call("before_backward")
        self.backward(self.loss, self.model, self.loss_func, self.divisor)
        try:
            self.call("before_step")
            self.optimizer.step()
            self.call("after_step")
            self.optimizer.zero_grad()
        except SkipStep:
            pass
        self.progress += 1.0 / (len(self.train) * self.epochs)
        return value


class ParamScheduler(Callback):
    """Set the learning rate of each parameter group, and one momentum for all, from the progress before each batch."""

    def __init__(self, lrs: Sequence[Schedule], momentum: Schedule | None = None):
        self.lrs, self.momentum = lrs, momentum

    def before_batch(self, learner: Learner) -> None:
        for group, lr in zip(learner.optimizer.param_groups, self.lrs, strict=True):
            group["lr"] = lr(learner.progress)
            if self.momentum is not None:
                set_momentum(group, self.momentum(learner.progress))


class GradientAccumulation(Callback):
    """Add up the gradients of several batches until they have `examples` examples, then update.

    Each loss is weighted by the batch's share of the examples, so the sum is the gradient of one large batch.
    """

    def __init__(self, examples: int):
        if examples < 1:
            raise ValueError(f"accumulate over {examples} examples: expected at least 1")
        self.examples, self.count = examples, 0

    def before_fit(self, learner: Learner) -> None:
        self.count = 0

    def before_backward(self, learner: Learner) -> None:
        learner.divisor = self.examples / len(learner.x)

    def before_step(self, learner: Learner) -> None:
        self.count += len(learner.x)
        if self.count < self.examples:
            raise SkipStep
        self.count = 0


class GradientClip(Callback):
    """Scale all gradients by one factor so that their total norm is at most `max_norm` (Pascanu et al., 2013)."""

    def __init__(self, max_norm: float):
        if not max_norm > 0:
            raise ValueError(f"clip to norm {max_norm}: expected a positive number")
        self.max_norm = max_norm

    def before_step(self, learner: Learner) -> None:
        grads = [p.grad for p in learner.model.parameters() if p.grad is not None]
        total = torch.stack([grad.norm() for grad in grads]).norm()
        factor = (self.max_norm / (total + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factor)


def main() -> None:
    """Train a network of our layers on scikit-learn's digits."""
    from kit.mechanism.batches import DataLoader, load_digits
    from kit.mechanism.layers import Flatten, Linear, ReLU, Sequential, SoftmaxCrossEntropy
    from kit.mechanism.optimizers import SGD

    torch.manual_seed(1)
    train, valid = load_digits().split(0.25)
    network = Sequential(Flatten(), Linear(64, 50), ReLU(), Linear(50, 10))
    batches = DataLoader(train, 32, shuffle=True), DataLoader(valid, 256)
    for row in fit(10, network, *batches, SoftmaxCrossEntropy(), SGD(network.parameters(), lr=0.1, momentum=0.9)):
        print("  ".join(f"{name} {value:.3g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
