"""Losses: one number that says how wrong a batch of answers is, and that gets smaller with every small improvement.

Mean squared error for numbers, cross entropy for classes. Accuracy is what people ask for, but it moves in jumps and is
flat between them, so its gradient says nothing: `flat_share` measures that. `python -m kit.mechanism.losses` shows it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from kit.mechanism.activations import log_softmax
from kit.mechanism.gradient import numerical_gradient


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """mean((prediction - target)^2) over every element of two tensors of the same shape: a tensor of shape ().

    Raises `ValueError` for different shapes: (n, 1) and (n,) would broadcast silently to n * n differences.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} and target {tuple(target.shape)}: "
            "expected the same; reshape one of them"
        )
    check_batch(prediction)
    check_batch(target, "target")
    return ((prediction - target) ** 2).mean()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-mean over the batch of log p(right class), with p = softmax(logits): a tensor of shape ().

    logits: (n, classes), scores before softmax. target: class numbers (n,), or one-hot or soft labels (n, classes).
    It is 0 for a sure right answer, log(classes) for a blind guess, and grows without bound for a sure wrong one.
    Source: C. Shannon, A mathematical theory of communication, 1948; I. J. Good, Rational decisions, 1952.
    """
    check_batch(logits, "logits")
    if len(logits.shape) != 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}: expected (n, classes)")
    if len(target.shape) == 1:
        target = one_hot(target, logits.shape[1]).to(logits.data.dtype)
    if target.shape != logits.shape:
        n, classes = logits.shape
        raise ValueError(
            f"logits have shape {(n, classes)} and target {tuple(target.shape)}: "
            f"expected class numbers ({n},) or one-hot labels {(n, classes)}"
        )
    check_batch(target, "target")
    return -(log_softmax(logits, dim=1) * target).sum() / logits.shape[0]


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Class numbers (n,) as rows of zeros with one 1: (n, classes), float32.

    Raises `ValueError` for labels that are no whole numbers, or outside 0 to classes - 1.
    """
    if target.ndim != 1:
        raise ValueError(f"labels have shape {tuple(target.shape)}: expected (n,)")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"labels are {target.dtype}: expected whole numbers; use .long()")
    wrong = target[(target < 0) | (target >= classes)]
    if len(wrong):
        raise ValueError(f"label {wrong[0].item()} is out of range: expected 0 to {classes - 1} for {classes} classes")
    return (target[:, None] == torch.arange(classes, device=target.device)).float()


def accuracy(logits: Tensor, target: Tensor) -> float:
    """The share of the batch whose highest score is at the right class: 0 to 1.

    logits: (n, classes), scores or probabilities alike. target: (n,) or one-hot (n, classes).
    """
    check_batch(logits, "logits")
    right = target if target.ndim == 1 else target.argmax(dim=1)
    guess = logits.argmax(dim=1)
    if guess.shape != right.shape:
        raise ValueError(f"{len(guess)} answers and {len(right)} labels: expected as many of one as of the other")
    return (guess == right).double().mean().item()


def check_batch(x: Tensor, name: str = "prediction") -> None:
    """Raise `ValueError` for an empty batch or one that holds NaN: the mean of either is no loss at all."""
    values = x.data
    if values.numel() == 0:
        raise ValueError(f"the {name} is empty, with shape {tuple(values.shape)}: expected a batch of at least one")
    missing = int(values.isnan().sum())
    if missing:
        raise ValueError(
            f"the {name} holds NaN ({missing} of {values.numel()} values): "
            "expected numbers; look for a learning rate too large, 0 / 0 or log(0)"
        )


def flat_share(score: Callable[[Tensor], Tensor | float], points: Iterable[Tensor], step: float = 1e-5) -> float:
    """The share of the tried points where the whole numerical gradient of `score` is exactly 0: nowhere to go."""
    flat = [bool((numerical_gradient(score, point, step) == 0).all()) for point in points]
    if not flat:
        raise ValueError("no points to try: give at least one")
    return sum(flat) / len(flat)


def main() -> None:
    """Print the loss of good, blind and wrong answers; then how flat accuracy is, and how flat the loss is not."""
    target = torch.tensor([2])
    for name, scores in [("sure and right", [0, 0, 9]), ("a blind guess", [0, 0, 0]), ("sure and wrong", [9, 0, 0])]:
        loss = cross_entropy(torch.tensor([scores], dtype=torch.float32), target)
        print(f"cross entropy, {name:15} {loss:.4f}")
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=dice, dtype=torch.float64)
    labels = (x[:, 0] > x[:, 1]).long()
    points = [torch.randn(2, 4, generator=dice, dtype=torch.float64) for _ in range(100)]
    print(f"gradient of accuracy is 0 at  {flat_share(lambda w: accuracy(x @ w.T, labels), points):.0%} of 100 points")
    print(f"gradient of the loss is 0 at {flat_share(lambda w: cross_entropy(x @ w.T, labels), points):.0%}")


if __name__ == "__main__":
    main()
