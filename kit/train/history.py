"""The history of a training: a printed line for each epoch, history.csv, and the curves as a picture.

history = History(); learn.fine_tune(1, cbs=[history]); history.rows
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from fastai.vision.all import IN_NOTEBOOK, Callback, Learner

from kit.console import emit, say

HEAD = "head"  # the phase in which the head is trained from features


class History(Callback):
    """Records each epoch, and loss and rate of each step, over all phases; prints a line an epoch unless quiet.

    rows: a dict for each epoch (epoch, phase, train_loss, valid_loss, the metrics, seconds); a head trained from
    features has the epoch 0 and the phase "head". steps: a dict for each training batch (step, loss, rate). ends: the
    number of steps at the end of each epoch. strengths: the cross-validated loss of each regularisation strength of a
    head trained from features. chosen: values that `fine_tune` chose where the recipe leaves them open. stopped: why
    training ended early, or None. log_run: the ID of the MLflow run that training is logged to, or None.
    """

    order = 55  # after the recorder, before callbacks that may end training at the end of an epoch
    checkpointed = ("rows", "steps", "ends", "strengths", "chosen", "phase", "log_run")
    phase: str | None = None

    def __init__(self, quiet: bool = IN_NOTEBOOK):
        super().__init__()
        self.quiet = quiet
        self.stopped: str | None = None
        self.log_run: str | None = None
        self.clear()

    def clear(self) -> None:
        """Delete all records, because training starts over."""
        self.rows: list[dict[str, Any]] = []
        self.steps: list[dict[str, float]] = []
        self.ends: list[int] = []
        self.strengths: dict[float, float] = {}
        self.chosen: dict[str, Any] = {}
        self.phase = None

    def add_head(self, figures: dict[str, float], strengths: dict[float, float], seconds: float) -> None:
        """Record a head that was trained from features: a row without steps, and the loss of each strength tried."""
        self.strengths = strengths
        self.rows.append({"epoch": 0, "phase": HEAD} | figures | {"seconds": round(seconds, 2)})
        self._say_row()

    def before_fit(self) -> None:
        """Name the phase: "frozen" or "whole"."""
        self.phase = "frozen" if self.opt.frozen_idx else "whole"
        if not self.quiet:
            emit("phase", phase=self.phase, epochs=self.n_epoch)

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def after_batch(self) -> None:
        """Record loss and highest rate of a training step."""
        if self.training:
            rate = self.opt.hypers[-1]["lr"]
            self.steps.append({"step": len(self.steps) + 1, "loss": float(self.loss.detach()), "rate": float(rate)})

    def after_epoch(self) -> None:
        """Record and print the values that fastai's recorder has computed."""
        figures = zip(self.recorder.metric_names[1:], self.learn.final_record, strict=False)
        row = {"epoch": len(self.ends) + 1, "phase": self.phase} | {name: float(value) for name, value in figures}
        self.rows.append(row | {"seconds": round(time.perf_counter() - self.started, 2)})
        self.ends.append(len(self.steps))
        self._say_row()

    def _say_row(self) -> None:
        if not self.quiet:
            emit("epoch", **self.rows[-1])
        if len(self.rows) == 1:
            self.say_all()
        elif not self.quiet:
            say(_line(self.rows[-1]))

    def say_all(self) -> None:
        """Print all epochs until now, with the names of the columns."""
        if self.rows and not self.quiet:
            say("\n".join(map(_line, [{name: name for name in self.rows[0]}, *self.rows])))

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the lowest validation loss; None where no epoch of images has ended."""
        rows = [row for row in self.rows if row["phase"] != HEAD]
        return min(rows, key=lambda row: row["valid_loss"])["epoch"] if rows else None

    def table(self) -> pd.DataFrame:
        """The epochs as a DataFrame."""
        return pd.DataFrame(self.rows)


def _line(row: dict[str, Any]) -> str:
    """One row of a table with columns of equal width."""
    return "  ".join(f"{value:>10.4f}" if isinstance(value, float) else f"{value:>10}" for value in row.values())


@contextmanager
def quiet(learn: Learner) -> Iterator[None]:
    """Turn off fastai's table and progress bars outside of notebooks, where `History` prints instead."""
    if IN_NOTEBOOK:
        yield
        return
    with learn.no_logging(), learn.no_bar():
        yield


def draw_curves(history: History, path: Path) -> None:
    """Write the training loss of each step, the validation loss of each epoch and the learning rate as a PNG.

    Where only the head was trained, from features: the cross-validated loss of each regularisation strength.
    """
    if not history.steps:
        return _draw_strengths(history, path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = pd.DataFrame(history.steps)
    losses.plot(steps["step"], steps["loss"], color="#a9d5cf", linewidth=1, label="training, each step")
    losses.plot(steps["step"], steps["loss"].ewm(span=10).mean(), color="#0f766e", label="training, smoothed")
    ends = [0] * (len(history.rows) - len(history.ends)) + history.ends  # a head trained from features has no steps
    losses.plot(ends, [row["valid_loss"] for row in history.rows], "o-", color="#b45309", label="validation")
    losses.set_ylabel("loss")
    losses.legend(frameon=False)
    rates.plot(steps["step"], steps["rate"], color="#555555")
    rates.set(xlabel="step", ylabel="learning rate")
    for axes in (losses, rates):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=180)


def _draw_strengths(history: History, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(history.strengths), list(history.strengths.values()), "o-", color="#0f766e")
    if history.strengths:
        best = min(history.strengths, key=history.strengths.get)
        axes.plot(best, history.strengths[best], "o", color="#b45309", markersize=10, label=f"chosen: C = {best:g}")
        axes.legend(frameon=False)
        axes.set_xscale("log")
    axes.set(xlabel="C of the head (the inverse of its L2 penalty)", ylabel="cross-validated loss")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=180)
