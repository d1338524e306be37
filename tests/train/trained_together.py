"""What test_data_parallel.py lets two processes do: torchrun --nproc_per_node 2 tests/train/trained_together.py JOB.

JOB is JSON: a list of runs, each with name, images, recipe, folder (of results), and optionally kill, poison or resume.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from fastai.vision.all import Callback

import kit
from kit import Recipe, processes
from kit.errors import TrainingError
from kit.train import transfer


class FirstGradient(Callback):
    """Keeps the gradient of the first step, and the weights before the first batch."""

    order = 20
    gradient = weights = None

    def before_fit(self):
        self.weights = None

    def before_batch(self):
        if self.weights is None:
            self.weights = [value.clone() for value in self.model.state_dict().values()]

    def before_step(self):
        if self.gradient is None:
            self.gradient = [one.grad.clone() for one in self.model.parameters() if one.grad is not None]


class KillLast(Callback):
    """Kills the last process before its `count`-th training batch."""

    def __init__(self, count: int):
        super().__init__()
        self.left = count

    def before_batch(self):
        self.left -= self.training
        if not self.left and processes.rank() == processes.count() - 1:
            os.kill(os.getpid(), signal.SIGKILL)


class PoisonLast(KillLast):
    """Makes the outputs of the last process in that batch NaN."""

    def before_batch(self):
        self.left -= self.training

    def after_pred(self):
        if not self.left and self.training and processes.rank() == processes.count() - 1:
            self.learn.pred = self.pred * float("nan")


def done(
    name: str, images: str, recipe: dict, folder: str, kill: int = 0, poison: int = 0, resume: bool = False
) -> dict:
    """One run of this process or of all that were started together, and what came out."""
    out, first = Path(folder) / name, FirstGradient()
    transfer.Trial.better = True  # so that all layers are trained
    cbs = [first, *([KillLast(kill)] if kill else []), *([PoisonLast(poison)] if poison else [])]
    try:
        if resume:
            run = kit.resume(out, cbs=cbs)
        else:
            run = kit.fine_tune(images, Recipe.from_json(recipe), out=out, cbs=cbs, onnx=False)
    except TrainingError as error:
        if not poison:
            raise
        return {"error": error.problem}
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in run.history.rows]
    return {
        "gradient": first.gradient,
        "begun with": first.weights,
        "weights": list(run.learner.model.state_dict().values()),
        "rows": rows,
        "losses": [step["loss"] for step in run.history.steps],
        "chosen": run.history.chosen,
        "folder": str(run.folder),
        "n": run.evaluation.n,
        "predictions": run.evaluation.predictions.to_csv(index=False),
        "table": run.table[["path", "label", "split", "sha256"]].to_csv(index=False),
    }


if __name__ == "__main__":
    for job in json.loads(sys.argv[1]):
        result = done(**job)
        torch.save(result, f"{job['folder']}/{job['name']}-{processes.rank()}.pt")
