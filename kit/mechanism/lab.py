"""Lab: leave out one part of a correct training, and see which value is the first to be wrong, and in which step.

Guess the value and the step before you look: most mistakes raise no error, and some hardly change the accuracy. The
network consists of `torch.nn` modules, which are swapped for our layers as in `transfer`; its lower layer is frozen.
Run `python -m kit.mechanism.lab` for all mistakes, or `python -m kit.mechanism.lab zero_grad` for one.
"""

import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.loop import Callback, Learner
from kit.mechanism.optimizers import Adam, AdamW, Optimizer
from kit.mechanism.trace import Difference, Step, Trace, first_difference
from kit.mechanism.transfer import fit_one_cycle, freeze_to, param_groups


class AdamWithoutBiasCorrection(AdamW):
    """AdamW whose averages are used as they are, although they start at 0."""

    def bias_correction(self, beta: float, step: int) -> float:
        return 1.0


class StayInEvalMode(Callback):
    """After the first epoch the network stays in evaluation mode, in which its validation left it."""

    def before_batch(self, learner: Learner) -> None:
        learner.model.train(learner.epoch == 0)


def softmax_twice(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of probabilities, although `cross_entropy` computes softmax itself."""
    return nn.functional.cross_entropy(logits.softmax(1), target)


MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "zero_grad": ("the gradients are not set to zero after a step", {"zero_grad": False}),
    "freeze": ("the lower layer is not frozen", {"freeze": False}),
    "bias_correction": ("Adam's averages are not corrected", {"optimizer": AdamWithoutBiasCorrection}),
    "train_mode": ("train() is not called after a validation", {"callbacks": [StayInEvalMode()]}),
    "softmax": ("softmax is applied before a loss that contains it", {"loss_func": softmax_twice}),
    "decoupled": ("weight decay is added to Adam's gradient", {"optimizer": Adam}),
    "shuffle": ("the images come in the same order in every epoch", {"shuffle": False}),
}
"""name -> what is wrong, and the arguments of `train` that make it so."""


def train(
    data: Dataset,
    optimizer: Callable[..., Optimizer] = AdamW,
    loss_func: Callable = nn.functional.cross_entropy,
    callbacks: Sequence[Callback] = (),
    freeze: bool = True,
    zero_grad: bool = True,
    shuffle: bool = True,
) -> tuple[list[Step], float]:
    """Train a small network for three epochs on images (n, 1, 8, 8); return its trace and the validation accuracy.

    The first 160 images are for training, the others for validation. The defaults are the correct training.
    """
    train_set, valid_set = Dataset(*data[:160]), Dataset(*data[160:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        parts = [body, nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))]
        steps = optimizer(param_groups(parts, weight_decay=0.1), lr=1e-3)
        freeze_to(1 if freeze else 0, parts, steps)
        if not zero_grad:
            steps.zero_grad = lambda: None
        batches = DataLoader(train_set, 32, shuffle, rng=Random(0)), DataLoader(valid_set, 500)
        learner, trace = Learner(nn.Sequential(*parts), *batches, loss_func, steps), Trace()
        fit_one_cycle(learner, 3, [0.02, 0.02], callbacks=[*callbacks, trace])
    return trace.steps, learner.rows[-1]["accuracy"]


def first_wrong(data: Dataset, mistake: str) -> tuple[Difference | None, float, float]:
    """Return the first difference that a mistake makes, and the accuracies of the correct and the wrong training."""
    if mistake not in MISTAKES:
        raise ValueError(f'no mistake "{mistake}"; expected one of {", ".join(MISTAKES)}')
    (correct, accuracy), (wrong, wrong_accuracy) = train(data), train(data, **MISTAKES[mistake][1])
    return first_difference(correct, wrong), accuracy, wrong_accuracy


def main() -> None:
    """Print for each mistake, or for those named, the first wrong value and the accuracy on 500 digits."""
    from kit.mechanism.batches import load_digits

    data = Dataset(*load_digits()[:660])
    for name in sys.argv[1:] or MISTAKES:
        try:
            difference, accuracy, wrong_accuracy = first_wrong(data, name)
        except ValueError as error:
            sys.exit(f"{error}")
        print(f"{name}: {MISTAKES[name][0]}; accuracy {wrong_accuracy:.1%}, without the mistake {accuracy:.1%}")
        print(f"    {difference}")


if __name__ == "__main__":
    main()
