"""Schedules: the learning rate and the momentum as functions of how far the training has come.

One cycle (Smith, 2018) warms the rate up and lets it fall to almost nothing, along half a cosine each way, while the
momentum goes the other way: where steps are long, less of the past is kept.

    python -m kit.mechanism.schedules
"""

import math
from collections.abc import Callable

import torch

Schedule = Callable[[float], float]


def linear(start: float, end: float) -> Schedule:
    """A straight line from `start` at position 0 to `end` at 1."""
    return lambda position: start + position * (end - start)


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine from `start` to `end`: flat at both ends (Loshchilov and Hutter, 2017)."""
    return lambda position: start + (1 + math.cos(math.pi * (1 - position))) * (end - start) / 2


def exponential(start: float, end: float) -> Schedule:
    """The same factor at every step."""
    return lambda position: start * (end / start) ** position


def two_parts(share: float, first: Schedule, second: Schedule) -> Schedule:
    """`first` for the first `share` of the way (0 to 1), then `second`.

    The position within a part is worked out in single precision, as fastai does it: the rates then agree in every bit.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share}: the first part takes more than 0 and less than 1 of the way")
    edges = torch.tensor([0, share, 1 - share]).cumsum(0)

    def schedule(position: float) -> float:
        part = min(int((position >= edges).sum()) - 1, 1)
        within = (position - edges[part]) / (edges[part + 1] - edges[part])
        return (first, second)[part](within.item())

    return schedule


def one_cycle(
    lr: float, share: float = 0.25, div: float = 25.0, div_final: float = 1e5, moms: tuple = (0.95, 0.85, 0.95)
) -> tuple[Schedule, Schedule]:
    """The schedules of rate and momentum: lr / div up to lr in the first `share`, then down to lr / div_final.

    The momentum falls from moms[0] to moms[1] meanwhile, and rises to moms[2].
    """
    rate = two_parts(share, cosine(lr / div, lr), cosine(lr, lr / div_final))
    momentum = two_parts(share, cosine(moms[0], moms[1]), cosine(moms[1], moms[2]))
    return rate, momentum


def main() -> None:
    """One cycle in eleven lines."""
    rate, momentum = one_cycle(0.01)
    for tenth in range(11):
        bar = "#" * round(rate(tenth / 10) * 4000)
        print(f"{tenth * 10:>3} %  rate {rate(tenth / 10):.6f}  momentum {momentum(tenth / 10):.3f}  {bar}")


if __name__ == "__main__":
    main()
