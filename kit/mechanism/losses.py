"""Losses: one number that measures how wrong the predictions of a batch are, and that has a useful gradient.

Mean squared error for regression, cross entropy for classification. Accuracy cannot be a loss: it changes in steps and
is constant between them, so its gradient is 0 almost everywhere (`zero_gradient_fraction` measures this).
Run `python -m kit.mechanism.losses` to see it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from kit.mechanism.activations import log_softmax
from kit.mechanism.gradient import numerical_gradient


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return mean((prediction - target)^2) over all elements of two tensors of the same shape; a scalar.

    Raises `ValueError` for different shapes: (n, 1) and (n,) would broadcast to n * n differences.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} and target {tuple(target.shape)}: "
            "expected the same; reshape one of them"
        )
    return ((prediction - target) ** 2).mean()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the batch of -log p(true class), with p = softmax(logits); a scalar.

    logits: (n, classes), scores before softmax. target: class indices (n,), or one-hot or soft labels (n, classes).
    The loss is near 0 for a confident correct prediction, log(classes) for equal probabilities, and unbounded for a
    confident wrong one. Source: I. J. Good, Rational decisions, 1952.
    """
    if len(logits.shape) != 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}: expected (n, classes)")
    if len(target.shape) == 1:
        target = one_hot(target, logits.shape[1]).to(logits.data.dtype)
    if target.shape != logits.shape:
        n, classes = logits.shape
        raise ValueError(
            f"logits have shape {(n, classes)} and target {tuple(target.shape)}: "
            f"expected class indices ({n},) or one-hot labels {(n, classes)}"
        )
    return -(log_softmax(logits, dim=1) * target).sum() / logits.shape[0]


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean of -(t log p + (1 - t) log(1 - p)) over all elements, with p = sigmoid(logits); a scalar.

    logits, target: (n, classes); a target from 0 to 1 says whether the image has the class. It is computed as
    max(z, 0) - z t + log(1 + exp(-|z|)), in which no exponential overflows.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and target {tuple(target.shape)}: expected the same, (n, classes)"
        )
    size = logits.relu() + (-logits).relu()
    return (logits.relu() - logits * target + ((-size).exp() + 1.0).log()).mean()


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Turn class indices (n,) into rows of zeros with a single 1: (n, classes), float32.

    Raises `ValueError` for labels that are not integers, or outside 0 to classes - 1.
    """
    if target.ndim != 1:
        raise ValueError(f"labels have shape {tuple(target.shape)}: expected (n,)")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"labels are {target.dtype}: expected integers; use .long()")
    wrong = target[(target < 0) | (target >= classes)]
    if len(wrong):
        raise ValueError(f"label {wrong[0].item()} is out of range: expected 0 to {classes - 1} for {classes} classes")
    return (target[:, None] == torch.arange(classes, device=target.device)).float()


def accuracy(logits: Tensor, target: Tensor) -> float:
    """Return the fraction of the batch whose highest score belongs to the true class, from 0 to 1.

    logits: (n, classes), scores or probabilities. target: (n,) or one-hot (n, classes).
    """
    true = target if target.ndim == 1 else target.argmax(dim=1)
    predicted = logits.argmax(dim=1)
    if predicted.shape != true.shape:
        raise ValueError(f"{len(predicted)} predictions and {len(true)} labels: expected the same number")
    return (predicted == true).double().mean().item()


def zero_gradient_fraction(
    function: Callable[[Tensor], Tensor | float], points: Iterable[Tensor], step: float = 1e-5
) -> float:
    """Return the fraction of `points` where the numerical gradient of `function` is exactly 0 in every element."""
    zero = [not numerical_gradient(function, point, step).any() for point in points]
    return sum(zero) / len(zero)


def main() -> None:
    """Print the loss of a right, an undecided and a wrong prediction; then how often the gradients are 0."""
    target = torch.tensor([2])
    for name, scores in [("confident, right", [0, 0, 9]), ("undecided", [0, 0, 0]), ("confident, wrong", [9, 0, 0])]:
        loss = cross_entropy(torch.tensor([scores], dtype=torch.float32), target)
        print(f"cross entropy, {name:16} {loss:.4f}")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    labels = (x[:, 0] > x[:, 1]).long()
    points = [torch.randn(2, 4, generator=generator, dtype=torch.float64) for _ in range(100)]
    for function in (accuracy, cross_entropy):
        fraction = zero_gradient_fraction(lambda w, function=function: function(x @ w.T, labels), points)
        print(f"the gradient of {function.__name__} is 0 at {fraction:.0%} of 100 random weights")


if __name__ == "__main__":
    main()
