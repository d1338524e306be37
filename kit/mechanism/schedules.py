"""Schedules: learning rate and momentum as functions of the training progress from 0 to 1 (linear, cosine, one cycle).

One cycle (Smith, A disciplined approach to neural network hyper-parameters, 2018) increases the learning rate to its
maximum and then decreases it to almost 0, both along half a cosine; the momentum changes in the opposite direction.
Run `python -m kit.mechanism.schedules` to see it.
"""

import math
from collections.abc import Callable

import torch

Schedule = Callable[[float], float]


def linear(start: float, end: float) -> Schedule:
    """A straight line from `start` at position 0 to `end` at position 1."""
    return lambda position: start + position * (end - start)


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine from `start` to `end`, flat at both ends (Loshchilov and Hutter, SGDR, 2017)."""
    return lambda position: start + (1 + math.cos(math.pi * (1 - position))) * (end - start) / 2


def exponential(start: float, end: float) -> Schedule:
    """From `start` to `end` with the same factor in every step."""
    return lambda position: start * (end / start) ** position


def combine(pct_start: float, first: Schedule, second: Schedule) -> Schedule:
    """Use `first` for the first `pct_start` of the training (a fraction from 0 to 1), then `second`.

    The position within a part is computed in float32, as fastai does, so that the values are equal bit for bit.
    """
    if not 0 < pct_start < 1:
        raise ValueError(f"pct_start {pct_start}: expected a fraction above 0 and below 1")
    edges = torch.tensor([0, pct_start, 1 - pct_start]).cumsum(0)

    def schedule(position: float) -> float:
        part = min(int((position >= edges).sum()) - 1, 1)
        within = (position - edges[part]) / (edges[part + 1] - edges[part])
        return (first, second)[part](within.item())

    return schedule


def one_cycle(
    lr_max: float, pct_start: float = 0.25, div: float = 25.0, div_final: float = 1e5, moms: tuple = (0.95, 0.85, 0.95)
) -> tuple[Schedule, Schedule]:
    """Return the schedules of learning rate and momentum.

    The learning rate goes from lr_max / div to lr_max in the first `pct_start`, then to lr_max / div_final; the
    momentum from moms[0] to moms[1], then to moms[2]. Names and defaults are fastai's.
    """
    lr = combine(pct_start, cosine(lr_max / div, lr_max), cosine(lr_max, lr_max / div_final))
    momentum = combine(pct_start, cosine(moms[0], moms[1]), cosine(moms[1], moms[2]))
    return lr, momentum


def main() -> None:
    """Print learning rate and momentum of one cycle at eleven positions."""
    lr, momentum = one_cycle(0.01)
    for tenth in range(11):
        bar = "#" * round(lr(tenth / 10) * 4000)
        print(f"{tenth * 10:>3} %  lr {lr(tenth / 10):.6f}  momentum {momentum(tenth / 10):.3f}  {bar}")


if __name__ == "__main__":
    main()
