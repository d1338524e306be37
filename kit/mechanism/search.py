"""Hyperparameter search: try random values, keep the best, and narrow the ranges around them.

Random search is better than a grid of the same size: each trial has a new value of every hyperparameter, also of the
one that matters most. Learning rates are drawn on a logarithmic scale, where 0.001 to 0.01 is as wide as 0.1 to 1.
Source: J. Bergstra and Y. Bengio, Random search for hyper-parameter optimization, JMLR 13, 2012.
Run `python -m kit.mechanism.search` to see three rounds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, isfinite, isnan, log

import torch


@dataclass(frozen=True)
class Range:
    """The values from `low` to `high`; with `log`, uniform on a logarithmic scale."""

    low: float
    high: float
    log: bool = True

    def __post_init__(self):
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise ValueError(f"range is {self.low} to {self.high}: expected a smaller and a larger number")
        if self.log and not self.low > 0:
            raise ValueError(f"range starts at {self.low}: a log range must be positive; use log=False")

    def _to_scale(self, value: float) -> float:
        return log(value) if self.log else value

    def _from_scale(self, value: float) -> float:
        return min(max(exp(value) if self.log else value, self.low), self.high)

    def draw(self, generator: torch.Generator | None = None) -> float:
        """Return one random value."""
        low, high = self._to_scale(self.low), self._to_scale(self.high)
        return self._from_scale(low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item())

    def narrow(self, values: Sequence[float]) -> "Range":
        """Return the part of this range around two or more good values.

        It extends beyond the smallest and largest by the mean distance of the values, because the best value may be
        just outside them.
        """
        if len(values) < 2 or min(values) == max(values):
            raise ValueError(f"cannot narrow a range around {list(values)}: expected at least two different values")
        low, high = self._to_scale(min(values)), self._to_scale(max(values))
        margin = (high - low) / (len(values) - 1)
        return replace(self, low=self._from_scale(low - margin), high=self._from_scale(high + margin))


@dataclass(frozen=True)
class Trial:
    """The values of the hyperparameters, the score of the objective, and the round (from 0)."""

    values: dict[str, float]
    score: float
    round: int


def random_search(
    objective: Callable[[dict[str, float]], float],
    ranges: Mapping[str, Range],
    trials: int = 20,
    rounds: int = 3,
    keep: int = 5,
    generator: torch.Generator | None = None,
) -> list[Trial]:
    """Try `trials` random values, narrow each range around the `keep` best of all, repeat for `rounds`; best first.

    objective: takes {"lr": 0.01, ...}, trains, and returns a score, the higher the better; NaN (the training diverged)
    counts as the worst. The score must come from validation data, not from the test data.
    """
    if not ranges:
        raise ValueError('no ranges to search: expected for example {"lr": Range(1e-4, 1)}')
    if rounds < 1 or keep < 2 or trials < keep:
        raise ValueError(f"trials={trials}, rounds={rounds}, keep={keep}: expected trials >= keep >= 2, rounds >= 1")
    done: list[Trial] = []
    current = dict(ranges)
    for number in range(rounds):
        for _ in range(trials):
            values = {name: span.draw(generator) for name, span in current.items()}
            done.append(Trial(values, float(objective(dict(values))), number))
        done.sort(key=lambda trial: float("inf") if isnan(trial.score) else -trial.score)
        good = [trial.values for trial in done[:keep] if not isnan(trial.score)]
        if len(good) > 1:
            current = {name: span.narrow([values[name] for values in good]) for name, span in ranges.items()}
    return done


def main() -> None:
    """Search two hyperparameters of an artificial objective with a known optimum, and print the best of each round."""

    def objective(values: dict[str, float]) -> float:
        return -(log(values["lr"] / 0.03) ** 2) - log(values["weight_decay"] / 1e-4) ** 2

    ranges = {"lr": Range(1e-5, 10), "weight_decay": Range(1e-8, 0.1)}
    found = random_search(objective, ranges, generator=torch.Generator().manual_seed(0))
    print("optimum: score 0 at lr 0.03, weight_decay 0.0001")
    for number in range(3):
        best = next(trial for trial in found if trial.round == number)
        values = ", ".join(f"{name} {value:.2g}" for name, value in best.values.items())
        print(f"round {number + 1}: best score {best.score:.3f} at {values}")


if __name__ == "__main__":
    main()
