"""Hyperparameter search: draw values at random, train with each, look at the best, draw again closer to those.

Random beats a grid of the same cost, because every trial tries a new value of every hyperparameter, also of the one
that matters. Rates are drawn in log space: 0.001 to 0.01 is as wide as 0.1 to 1. `python -m kit.mechanism.search`.
Source: J. Bergstra and Y. Bengio, Random search for hyper-parameter optimization, JMLR 13, 2012.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, isfinite, isnan, log

import torch


@dataclass(frozen=True)
class Range:
    """All values from `low` to `high`; with `log`, each power of ten between them is as likely as any other."""

    low: float
    high: float
    log: bool = True

    def __post_init__(self):
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise ValueError(f"range is {self.low} to {self.high}: expected a smaller and a larger number")
        if self.log and not self.low > 0:
            raise ValueError(f"range starts at {self.low}: a log range must be positive; use log=False")

    def inner(self, value: float) -> float:
        """The value on the scale that is drawn from: its logarithm in a log range."""
        return log(value) if self.log else value

    def outer(self, value: float) -> float:
        """Back from the scale that is drawn from, and never outside the range by rounding."""
        return min(max(exp(value) if self.log else value, self.low), self.high)

    def draw(self, generator: torch.Generator | None = None) -> float:
        """One value at random."""
        low, high = self.inner(self.low), self.inner(self.high)
        return self.outer(low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item())

    def narrow(self, values: Sequence[float]) -> "Range":
        """The part of this range that holds the good `values`, two or more, and a little room on both sides.

        The room is the values' mean distance: the best value may well lie just outside the good ones.
        """
        if len(values) < 2 or min(values) == max(values):
            raise ValueError(f"cannot narrow a range around {list(values)}: expected at least two different values")
        low, high = self.inner(min(values)), self.inner(max(values))
        room = (high - low) / (len(values) - 1)
        return replace(self, low=self.outer(low - room), high=self.outer(high + room))


@dataclass(frozen=True)
class Trial:
    """The hyperparameters that were tried, the score that the objective gave them, and in which round (from 0)."""

    values: dict[str, float]
    score: float
    round: int


def random_search(
    objective: Callable[[dict[str, float]], float],
    ranges: Mapping[str, Range],
    trials: int = 20,
    rounds: int = 3,
    keep: int = 5,
    minimize: bool = False,
    generator: torch.Generator | None = None,
) -> list[Trial]:
    """`rounds` times: try `trials` random draws, then narrow each range around the `keep` best of all. Best first.

    objective: takes {"lr": 0.01, ...}, trains and measures; the higher the better, or with `minimize` the lower.
    NaN (a run that diverged) counts as worst. Score on validation data, and never on the test data.
    """
    if not ranges:
        raise ValueError('no ranges to search: expected for example {"lr": Range(1e-4, 1)}')
    if rounds < 1 or keep < 2 or trials < keep:
        raise ValueError(f"trials={trials}, rounds={rounds}, keep={keep}: expected trials >= keep >= 2, rounds >= 1")
    done: list[Trial] = []
    now = dict(ranges)
    for number in range(rounds):
        for _ in range(trials):
            values = {name: span.draw(generator) for name, span in now.items()}
            done.append(Trial(values, float(objective(dict(values))), number))
        done.sort(key=lambda trial: badness(trial.score, minimize))
        good = [trial.values for trial in done[:keep] if not isnan(trial.score)]
        if len(good) > 1:
            now = {name: span.narrow([values[name] for values in good]) for name, span in ranges.items()}
    return done


def badness(score: float, minimize: bool) -> float:
    """What trials are sorted by, smallest first: the score, its negative, or infinity for NaN."""
    if isnan(score):
        return float("inf")
    return score if minimize else -score


def main() -> None:
    """Search for the two rates of a made-up objective whose best is known, and print how each round comes closer."""

    def objective(values: dict[str, float]) -> float:
        return log(values["lr"] / 0.03) ** 2 + log(values["weight_decay"] / 1e-4) ** 2

    ranges = {"lr": Range(1e-5, 10), "weight_decay": Range(1e-8, 0.1)}
    found = random_search(objective, ranges, minimize=True, generator=torch.Generator().manual_seed(0))
    print("best would be lr 0.03, weight_decay 0.0001")
    for number in range(3):
        best = next(trial for trial in found if trial.round == number)
        rates = ", ".join(f"{name} {value:.2g}" for name, value in best.values.items())
        print(f"round {number + 1}: best loss {best.score:.3f} at {rates}")


if __name__ == "__main__":
    main()
