"""Logging of training to TensorBoard or Weights & Biases, by fastai's own callbacks.

with logging_to("tensorboard", learn, Path("runs/pets")) as callbacks: learn.fine_tune(1, cbs=callbacks)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import RecipeError

if TYPE_CHECKING:
    from fastai.vision.all import Callback, Learner


def check_log(log: str) -> None:
    """Raise `RecipeError` where the package that writes the log cannot be imported."""
    if log == "none":
        return
    try:
        import_module(log)
    except ImportError as error:
        raise RecipeError(f"log={log} needs the package {log}: {error}", fix=f"pip install {log}") from error


@contextmanager
def logging_to(
    log: str, learn: "Learner", folder: Path | None = None, config: Any = None
) -> "Iterator[list[Callback]]":
    """The callbacks for a recipe's `log`, while the log is open.

    folder: for the log's files; by default the package's own. config: the configuration of the wandb run. Logging draws
    no random numbers of the training, so that results are the same in every bit with and without it.
    """
    check_log(log)
    if log == "tensorboard":
        yield [_tensorboard(folder)]
    elif log == "wandb":
        with _wandb_run(learn, folder, config):
            yield [_wandb()]
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
