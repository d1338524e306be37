"""Trains a finished run again until the end of one step's epoch, and keeps all that this step used and made.

replay_step(read_finished(Path("runs/photos")), step=17).after["loss"]

The training is `kit.train.fine_tune` itself, from the run's recipe, table and seed. Its epochs must have the losses
that the run wrote to history.csv, so what is shown is a step of that run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from fastai.callback.mixup import MixHandler
from fastai.vision.all import Callback
from torch import Tensor, nn

from kit import data, model, train
from kit.console import say
from kit.errors import DataError
from kit.explain.finished import Finished
from kit.explain.head import HeadByHand, head_by_hand
from kit.mechanism.trace import Step, snapshot
from kit.model.build import ModelSpec, spec_of
from kit.model.heads import LINEAR
from kit.train.precision import Precision, precision_for
from kit.train.state import random_state_kept
from kit.train.transfer import is_balanced

NAMES = {"grad_avg": "mean", "sqr_avg": "squares", "step": "step"}


@dataclass
class Batch:
    """A batch as the network got it. x: (n, 3, h, w), normalised.

    generator: torch's random states on CPU and GPU before the forward pass, from which dropout draws. progress_at: the
    epoch, the number of epochs, the batch in the epoch, the number of batches. blended: with mixup or cutmix the
    targets of the second images, and the share (n,) or () of the first ones.
    """

    x: Tensor
    y: Tensor
    generator: tuple[Tensor, Tensor | None]
    progress_at: tuple[int, int, int, int]
    blended: tuple[Tensor, Tensor] | None = None


@dataclass
class Moment:
    """One step of a training: the network and the optimiser's state before it, the batches whose gradients it used, and
    PyTorch's values after it.

    number: of the batch, from 1, over all phases. phase: "frozen" or "whole". model: before the step, with the modes
    of its modules. state: of the optimiser, by parameter. after: as `kit.mechanism.trace.snapshot` keeps a step.
    wanted: which of the batches is the one that was asked for. loss_func: for the unblended targets.
    """

    run: Finished
    number: int
    phase: str
    spec: ModelSpec
    precision: Precision
    vocab: list[str]
    model: nn.Module
    state: dict[str, dict[str, Any]]
    loss_func: Any
    batches: list[Batch] = field(default_factory=list)
    after: Step = field(default_factory=dict)
    wanted: int = 0
    checked: list[str] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)
    head: HeadByHand | None = None

    @property
    def batch(self) -> Batch:
        """The batch that was asked for."""
        return self.batches[self.wanted]


class Seen(BaseException):
    """Ends the replay after the epoch of the wanted step. Not an `Exception`, which training would handle."""


class Witness(Callback):
    """Keeps what the wanted step used and made, then ends the training after its epoch."""

    order = 98  # after all that changes the batch: mixup, progressive resizing, memory layout, compilation

    def __init__(self, run: Finished, step: int):
        super().__init__()
        self.finished, self.step, self.number = run, step, 0
        self.moment: Moment | None = None
        self.done = False
        self.head: HeadByHand | None = None

    def before_fit(self) -> None:
        """Gradients of the phase before are not used any more: an update that the step belongs to was not made."""
        self.moment = self.moment if self.done else None
        if self.number >= self.step and not self.done:
            raise Seen
        if spec_of(self.learn).head == LINEAR and self.head is None and not is_balanced(self.finished.recipe):
            with random_state_kept(self.dls):
                self.head = head_by_hand(self.learn, self.finished)

    def before_batch(self) -> None:
        """Keep the batch, and at the first batch of an update network and optimiser."""
        if not self.training or self.done:
            return
        self.number += 1
        if self.number + self.finished.chosen["accumulate"] <= self.step:
            return
        mixed = next((one for one in self.learn.cbs if isinstance(one, MixHandler)), None)
        if self.moment is None:
            base = mixed.old_lf if mixed and mixed.stack_y else self.learn.loss_func
            self.moment = self._moment(deepcopy(base))
        blended = (mixed.yb1[0].clone(), mixed.lam.clone()) if mixed and mixed.stack_y else None
        if self.number == self.step:
            self.moment.wanted = len(self.moment.batches)
        place = (self.epoch, self.n_epoch, self.iter, self.n_iter)
        x, y = (one.detach().clone().as_subclass(Tensor) for one in (self.xb[0], self.yb[0]))
        generator = torch.get_rng_state(), torch.cuda.get_rng_state(x.device) if x.is_cuda else None
        self.moment.batches.append(Batch(x, y, generator, place, blended))

    def _moment(self, loss_func: Any) -> Moment:
        network = getattr(self.learn.model, "_orig_mod", self.learn.model)
        names = {id(p): name for name, p in network.named_parameters()}
        state = {names[id(p)]: deepcopy(_ours(one)) for p, one in self.opt.state.items()}
        spec, vocab = spec_of(self.learn), [str(name) for name in self.dls.vocab]
        phase = self.learn.history.phase
        precision = precision_for(self.learn, spec.recipe)
        return Moment(self.finished, self.step, phase, spec, precision, vocab, deepcopy(network), state, loss_func)

    def after_step(self) -> None:
        """Keep PyTorch's values of the wanted step; any other is forgotten."""
        if self.done or self.moment is None:
            return
        if self.number < self.step:
            self.moment = None
            return
        rates = {f"lr of group {2 * i + k}": float(one["lr"]) for i, one in enumerate(self.opt.hypers) for k in (0, 1)}
        rates["momentum"] = self.opt.hypers[0]["mom"]
        last = self.moment.batches[-1]
        network = getattr(self.learn.model, "_orig_mod", self.learn.model)
        state = lambda p: _ours(self.opt.state[p]) if p in self.opt.state else {}  # noqa: E731
        loss = self.learn.loss.detach().as_subclass(Tensor)
        self.moment.after = snapshot(last.x, last.y, loss, rates, network, state)
        self.done, self.moment.head = True, self.head

    def after_epoch(self) -> None:
        """End the training."""
        if self.done:
            raise Seen


def _ours(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of fastai's Adam for one parameter with our names."""
    return {NAMES[name]: value for name, value in state.items() if name in NAMES}


def replay_step(run: Finished, step: int) -> Moment:
    """Train the run again until the end of the epoch of batch number `step`, from 1, and return that step.

    Raises `DataError` for a step that the run did not take, and where the losses are not those of the run.
    """
    steps = run.chosen["steps"]
    if not 1 <= step <= steps:
        raise DataError(f"{run.folder} trained on {steps} batches; it has no step {step}", fix=f"--step 1 to {steps}")
    if (count := run.chosen.get("processes", 1)) > 1:
        problem = f"{run.folder} was trained by {count} processes, and is replayed by one, which divides no batch"
        raise DataError(problem, fix="train again in one process, then explain that run")
    if run.chosen["precision"] == "fp16":
        problem = f"{run.folder} was trained in fp16, whose scaling of the loss is not computed by hand"
        raise DataError(problem, fix="train with --precision fp32 or bf16, then explain that run")
    with _threads(run.chosen["threads"]):
        train.seed_everything(run.recipe.seed)
        learn = model.learner(data.blocks(run.recipe).dataloaders(run.table), run.recipe)
        witness, history = Witness(run, step), train.History(quiet=True)
        say(f"trains {run.folder} again until the end of the epoch of step {step} of {steps} ...")
        with suppress(Seen), learn.no_bar(), learn.no_logging():
            train.fine_tune(learn, run.recipe, cbs=[witness], history=history)
    if not witness.done:
        problem = f"batch {step} belongs to no update: its phase ended before {run.chosen['accumulate']} were gathered"
        raise DataError(problem, fix="give the number of an earlier batch")
    witness.moment.checked, witness.moment.steps = _same_losses(run, history.rows), history.steps
    return witness.moment


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The number of threads of the run: sums in another order differ in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _same_losses(run: Finished, rows: list[dict[str, Any]]) -> list[str]:
    """For each epoch a line that says that its loss is that of history.csv. Raises `DataError` where it is not."""
    lines = []
    for row, known in zip(rows, run.history.to_dict("records"), strict=False):
        for name in ("train_loss", "valid_loss"):
            if abs(row[name] - known[name]) > 1e-6 * abs(known[name]):
                problem = (
                    f"the replay is not the run: in epoch {known['epoch']} the {name} is {row[name]:.8g}, "
                    f"and {run.folder / 'history.csv'} says {known[name]:.8g}"
                )
                fix = "use the versions and the machine of recipe.json; what was given in Python alone is not replayed"
                raise DataError(problem, fix=fix)
        lines.append(f"epoch {known['epoch']} ({known['phase']}): training loss {row['train_loss']:.6f}")
    return lines
