"""Learning rates: defaults, and the learning-rate finder, which leaves the learner unchanged.

curve = find_rate(learn, recipe); curve.suggestion              # 0.0021
"""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from fastai.callback.schedule import valley
from fastai.optimizer import OptimWrapper
from fastai.vision.all import CancelFitException, Learner, LRFinder, ParamScheduler

from kit.console import say
from kit.data.listing import OWN_CHART
from kit.errors import RecipeError, TrainingError
from kit.model.build import spec_of
from kit.model.heads import FASTAI, LINEAR
from kit.recipe import Recipe
from kit.train.callbacks import batch_callbacks
from kit.train.precision import precision_for, training_in
from kit.train.state import copy_of, random_state_kept

STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0
MIN_POINTS = 10


@dataclass(frozen=True)
class RateCurve:
    """Result of the learning-rate finder: the rates tried, the smoothed training loss at each, and the suggestion."""

    rates: list[float]
    losses: list[float]
    suggestion: float

    def table(self) -> pd.DataFrame:
        """A DataFrame with a row for each step: rate, loss."""
        return pd.DataFrame({"rate": self.rates, "loss": self.losses})


def rates_for(learn: Learner, recipe: Recipe) -> tuple[float, float]:
    """The recipe's rate and lr_mult, or defaults that depend on the weights and the head.

    The bundled weights were trained on photos of 32 pixels and have to change more than ImageNet's, early layers too.
    After a linear head that was trained from features, rates are low, so that fine-tuning does not distort the
    features. With rate "auto" the rate is the suggestion of `find_rate`.
    """
    bundled = spec_of(learn).weights.kind == "bundled"
    rate, lr_mult = (5e-3, 10.0) if bundled else (2e-3, 100.0)
    if spec_of(learn).head == LINEAR:
        rate, lr_mult = (3e-4 if bundled else 1e-4), 1.0
    wanted = _found_rate(learn, recipe) if recipe.rate == "auto" else recipe.rate
    return wanted or rate, recipe.lr_mult or lr_mult


def _found_rate(learn: Learner, recipe: Recipe) -> float:
    """The suggestion of `find_rate`, with printed lines because it takes a while on a CPU."""
    say(f"rate auto: a copy trains for {STEPS} batches to find a rate")
    suggestion = find_rate(learn, recipe).suggestion
    say(f"rate auto: {suggestion:.2g}")
    return suggestion


def find_rate(learn: Learner, recipe: Recipe) -> RateCurve:
    """Train a copy of `learn` for 100 batches with a growing rate (fastai's `lr_find`), and suggest one by "valley".

    The copy's body is frozen where `fine_tune` would train fastai's head first; batches and loss are the recipe's
    (mixup, weights, smoothing, clipping), with one batch a step. `learn`, its loaders and all random states are
    unchanged on return, and no file is written. Raises `TrainingError` where the loss diverges after too few steps.
    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.
    """
    copy = _copy_of(learn)
    if spec_of(learn).weights.pretrained and spec_of(learn).head == FASTAI:
        copy.freeze()
    epochs = STEPS // len(learn.dls.train) + 1
    training = training_in(copy, precision_for(learn, recipe))
    with random_state_kept(learn.dls), copy.no_bar(), copy.no_logging(), training as needed:
        copy.fit(epochs, cbs=[*needed, *batch_callbacks(copy, recipe), RateFinder(LOWEST, HIGHEST, STEPS)])
    return _curve(copy.recorder.lrs, [float(loss) for loss in copy.recorder.losses])


class RateFinder(LRFinder):
    """fastai's LRFinder without saving and loading the learner, which is a copy; stops at a loss that is not finite.

    fastai's stops at four times the lowest loss. Here that is the lowest after the first tenth of the steps, because
    the first small batches may have a low loss by chance.
    """

    def before_fit(self) -> None:
        """Start the schedule without saving the learner."""
        ParamScheduler.before_fit(self)
        self.best_loss = float("inf")

    def after_batch(self) -> None:
        """Stop where the loss is not finite, or far above the lowest."""
        if self.train_iter <= STEPS // 10:
            self.best_loss = float("inf")
        super().after_batch()
        if not math.isfinite(self.smooth_loss):
            raise CancelFitException

    def after_fit(self) -> None:
        """Do not load the learner, which was not saved."""


def _copy_of(learn: Learner) -> Learner:
    """`copy_of` with the same loaders; `RecipeError` for an optimiser that is bound to the learner's parameters."""
    if isinstance(learn.opt_func, OptimWrapper):
        problem = "rate=auto trains a copy, and this learner's opt_func is an optimiser of its own parameters"
        raise RecipeError(problem, fix="opt_func=partial(OptimWrapper, opt=...), or a rate")
    return copy_of(learn, learn.dls)


def _curve(rates: list[float], losses: list[float]) -> RateCurve:
    """The curve without the first tenth and the last five steps for the suggestion, as in fastai."""
    count, last = sum(math.isfinite(loss) for loss in losses), losses[-1]
    rates, losses = [float(rate) for rate in rates[:count]], losses[:count]
    used = slice(STEPS // 10, -5)
    if len(losses[used]) < MIN_POINTS:
        problem = f"the rate finder ended too soon: after {count} steps the loss was {last:.3g}"
        raise TrainingError(problem, fix="look at the images and the loss first; or give a rate: --rate 2e-3")
    suggestion, _ = valley(torch.tensor(rates[used]), torch.tensor(losses[used]), STEPS)
    return RateCurve(rates, losses, suggestion)


def draw_rates(curve: RateCurve, path: Path) -> None:
    """Write a plot of loss against rate, with the suggestion, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="#2f6fde", linewidth=2)
    axes.axvline(curve.suggestion, color="#e0662f", linewidth=1.5, linestyle="--")
    axes.text(
        curve.suggestion,
        0.97,
        f" {curve.suggestion:.2g}",
        color="#e0662f",
        transform=axes.get_xaxis_transform(),
        va="top",
    )
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed")
    usual = median(curve.losses)
    top = usual + 1.5 * max(usual - min(curve.losses), abs(usual) / 2)
    axes.set_ylim(top=min(top, 1.05 * max(curve.losses)))  # cut off the diverging end
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, format="png", metadata=OWN_CHART)
