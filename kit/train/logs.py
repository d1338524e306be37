"""Logging of training to TensorBoard or Weights & Biases, by fastai's own callbacks, or to MLflow.

with logging_to("tensorboard", learn, history, Path("runs/pets")) as callbacks: learn.fine_tune(1, cbs=callbacks)
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.console import say
from kit.errors import RecipeError, first_line

if TYPE_CHECKING:
    from fastai.vision.all import Callback, Learner

    from kit.train.history import History

MOST_AT_ONCE = 1_000  # metrics that MLflow takes in one request


def check_log(log: str) -> None:
    """Raise `RecipeError` where the package that writes the log cannot be imported."""
    if log == "none":
        return
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    try:
        import_module(log)
    except ImportError as error:
        raise RecipeError(f"log={log} needs the package {log}: {error}", fix=f"pip install {log}") from error


@contextmanager
def logging_to(
    log: str, learn: "Learner", history: "History", folder: Path | None = None, config: Any = None
) -> "Iterator[list[Callback]]":
    """The callbacks for a recipe's `log`, while the log is open.

    history: of this training; its `log_run` names the MLflow run that is gone on with, or gets the name of a new one.
    folder: for the log's files; by default the package's own. config: the configuration of the run. Logging draws no
    random numbers of the training, so that results are the same in every bit with and without it.
    """
    check_log(log)
    if log == "tensorboard":
        yield [_tensorboard(folder)]
    elif log == "wandb":
        with _wandb_run(learn, folder, config):
            yield [_wandb()]
    elif log == "mlflow":
        with _mlflow_run(learn, history, folder, config) as callback:
            yield [callback]
    else:
        yield []


def _tensorboard(folder: Path | None) -> "Callback":
    """fastai's callback with a folder for each phase, because it restarts the step count; no traced model or images."""
    from fastai.callback.tensorboard import TensorBoardCallback

    class TensorBoard(TensorBoardCallback):
        """fastai's callback, which writes to FOLDER/tensorboard/PHASE."""

        def before_fit(self) -> None:
            """Choose the folder of the phase."""
            if folder is not None:
                self.log_dir = folder / "tensorboard" / ("frozen" if self.opt.frozen_idx else "whole")
            super().before_fit()

    return TensorBoard(trace_model=False, log_preds=False)


def _wandb() -> "Callback":
    """fastai's callback without predictions and models, so that no images are uploaded."""
    from fastai.callback.wandb import WandbCallback

    class Wandb(WandbCallback):
        """fastai's callback without its `gather_args`, which draws a batch and fails with fastcore 2.2. The run's
        configuration is the recipe instead."""

        def before_fit(self) -> None:
            self.learn.gather_args = dict
            try:
                super().before_fit()
            finally:
                del self.learn.gather_args

    return Wandb(log_preds=False)


@contextmanager
def _wandb_run(learn: "Learner", folder: Path | None, config: Any) -> Iterator[None]:
    """A wandb run, opened before training and always closed after it; WANDB_MODE=offline works."""
    import wandb

    from kit.train.state import random_state_kept

    with random_state_kept(learn.dls):
        try:
            run = wandb.init(project="kit", name=folder and folder.name, dir=folder and str(folder), config=config)
        except wandb.Error as error:
            raise RecipeError(f"log=wandb: {error}", fix="run `wandb login`, or set WANDB_MODE=offline") from error
    failed = True
    try:
        yield
        failed = False
    finally:
        run.finish(exit_code=int(failed))


def _mlflow(learn: "Learner", history: "History") -> "Callback":
    """A callback that logs to the MLflow run `history.log_run`; mlflow's own writes pickles of the learner."""
    from fastai.vision.all import Callback
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from kit.train.state import random_state_kept

    class MLflow(Callback):
        """Logs each row of the history, that of the head too, and loss and rate of each step."""

        order = 56  # after the history
        checkpointed = ("logged_rows", "logged_steps")
        logged_rows = logged_steps = 0

        def after_epoch(self) -> None:
            self.log()

        def log(self) -> None:
            """Log what is new in the history."""
            if len(history.rows) < self.logged_rows:  # training began again with smaller batches
                self.logged_rows = self.logged_steps = 0
            rows, steps = history.rows[self.logged_rows :], history.steps[self.logged_steps :]
            found = [(row["epoch"], name, value) for row in rows for name, value in row.items() if name != "epoch"]
            found += [(step["step"], name, step[name]) for step in steps for name in ("loss", "rate")]
            now = int(1000 * time.time())
            metrics = [Metric(name, value, now, step) for step, name, value in found if isinstance(value, float)]
            with random_state_kept(learn.dls):
                for start in range(0, len(metrics), MOST_AT_ONCE):
                    MlflowClient().log_batch(history.log_run, metrics[start : start + MOST_AT_ONCE])
            self.logged_rows, self.logged_steps = len(history.rows), len(history.steps)

    return MLflow()


@contextmanager
def _mlflow_run(learn: "Learner", history: "History", folder: Path | None, config: Any) -> "Iterator[Callback]":
    """The callback, while the MLflow run of this training is open: the caller's own, `history.log_run` or a new one.

    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where it is.
    """
    import mlflow

    from kit.train.state import random_state_kept

    mine = mlflow.active_run() is None
    with random_state_kept(learn.dls):
        try:
            run = mlflow.start_run(history.log_run, run_name=folder and folder.name) if mine else mlflow.active_run()
            if history.log_run is None:
                mlflow.log_params(config or {})
        except Exception as error:  # of mlflow, of its database or of the network
            fix = "check MLFLOW_TRACKING_URI; pip install mlflow, where mlflow-skinny lacks a package"
            raise RecipeError(f"log=mlflow: {first_line(error)}", fix=fix) from error
    history.log_run, status, callback = run.info.run_id, "FAILED", _mlflow(learn, history)
    try:
        yield callback
        callback.log()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if mine:
            mlflow.end_run(status)


def log_results(history: "History", folder: Path, figures: dict[str, Any]) -> None:
    """Add the figures of a finished run, its bundle and its report to its MLflow run, where there is one.

    A failure is a message: all of it is in the run folder already.
    """
    if history.log_run is None:
        return
    from mlflow import MlflowClient

    try:
        client, run_id = MlflowClient(), history.log_run
        for name, value in figures.items():
            if isinstance(value, int | float):
                client.log_metric(run_id, f"result/{name}", value)
        client.log_artifacts(run_id, str(folder / "bundle"), "bundle")
        for name in ("report.html", "result.json", "recipe.json"):
            client.log_artifact(run_id, str(folder / name))
    except Exception as error:
        say(f"note: bundle and report could not be logged to MLflow: {first_line(error)}; they are in {folder}")
