"""What the loop written by hand costs beside fastai's: the same network, batches, optimiser and schedule.

    python tests/bench/loop_by_hand.py

Prints the ratio of their times (below 1: ours is faster), the median of several pairs that were run in turns, and the
quartiles. Both sides train torchvision's resnet18 on scikit-learn's digits at 32 pixels, and end with equal weights.
"""

import statistics
import time
from collections.abc import Callable

import torch
from fastai.data.core import DataLoaders
from fastai.vision.all import CrossEntropyLossFlat
from fastai.vision.all import Learner as FastaiLearner
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.models import resnet18

from kit.mechanism.loop import Learner
from kit.mechanism.optimizers import Adam
from kit.mechanism.transfer import fit_one_cycle, param_groups

PAIRS, BATCH, BATCHES = 15, 16, 8


def digit_batches() -> list[tuple[Tensor, Tensor]]:
    """The batches, made once: what is measured is the loop, not the loading."""
    digits = load_digits()
    images = torch.tensor(digits.images[: BATCH * BATCHES], dtype=torch.float32)[:, None] / 16
    images = nn.functional.interpolate(images, size=32).expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(digits.target[: BATCH * BATCHES])
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def start() -> nn.Module:
    """The same network for both."""
    torch.manual_seed(0)
    return resnet18(num_classes=10)


def by_fastai(batches: list, model: nn.Module) -> None:
    """An epoch of `fit_one_cycle`, silent."""
    learn = FastaiLearner(DataLoaders(batches, batches[:1], device="cpu"), model, CrossEntropyLossFlat())
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)


def by_hand(batches: list, model: nn.Module) -> None:
    """An epoch of ours."""
    optimizer = Adam(param_groups([model]), lr=1e-3, decoupled=True)
    learner = Learner(model, batches, batches[:1], nn.CrossEntropyLoss(), optimizer)
    fit_one_cycle(learner, 1, [1e-3])


def seconds(train: Callable, batches: list) -> tuple[float, nn.Module]:
    """How long it took, and what came of it."""
    model = start()
    begin = time.perf_counter()
    train(batches, model)
    return time.perf_counter() - begin, model


def main() -> None:
    """Measure in turns, so that both meet the same machine."""
    batches, ratios = digit_batches(), []
    seconds(by_fastai, batches), seconds(by_hand, batches)
    for _ in range(PAIRS):
        theirs, first = seconds(by_fastai, batches)
        ours, second = seconds(by_hand, batches)
        ratios.append(ours / theirs)
    equal = all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"weights equal in every bit: {equal}")
    print(f"by hand / fastai: {median:.3f} (quartiles {low:.3f} to {high:.3f}, {PAIRS} pairs)")


if __name__ == "__main__":
    main()
