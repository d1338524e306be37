"""One step of a training computed again with `kit.mechanism`, beside the values that PyTorch and fastai computed.

by_hand = step_by_hand(replay_step(run, step=17)); by_hand.first     # None: not one bit differs

Written out by hand are the loop, the schedules, freezing, the optimiser, and the loss and the head with their
gradients. The body's convolutions and their gradients are PyTorch's in both.
"""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from fastai.layers import NoneReduce
from torch import Tensor, nn

from kit.explain.loss import HeadGradients, LossByHand, loss_by_hand
from kit.explain.recording import Norm, Recording, Shape, finish_norm, kind_of, norms_of
from kit.explain.replay import Batch, Moment
from kit.mechanism import loop, schedules, transfer
from kit.mechanism.optimizers import Adam
from kit.mechanism.trace import Difference, Step, Trace, first_difference
from kit.model.heads import LINEAR
from kit.train.precision import DTYPES

WEIGHT_DECAY = 0.01  # fastai's default
POINTS = 240


@dataclass(frozen=True)
class Plan:
    """How rates and momentum change over a phase. lr_max: of each part, from the lowest to the head."""

    lr_max: list[float]
    pct_start: float
    div: float

    @property
    def schedules(self) -> tuple[list[schedules.Schedule], schedules.Schedule]:
        """The learning rate of each part, and the momentum, as functions of the progress."""
        cycles = [schedules.one_cycle(rate, self.pct_start, self.div) for rate in self.lr_max]
        return [rate for rate, _ in cycles], cycles[0][1]


@dataclass(frozen=True)
class LayerRow:
    """A layer with parameters: norms of its weights before the step, of their gradient and of their update. rate: its
    learning rate. frozen: its parameters are not trained, and have no gradient."""

    name: str
    kind: str
    count: int
    part: int
    rate: float
    frozen: bool
    weight: float
    gradient: float
    update: float


@dataclass(frozen=True)
class Compared:
    """Values of one kind, by hand and by PyTorch: how many, how many differ in a bit, and the largest difference."""

    kind: str
    count: int
    differ: int
    largest: float


@dataclass(frozen=True)
class StepByHand:
    """All about a step by hand.

    values: as `Moment.after`. compared: with these, by kind. first: the first value that differs in a bit, or None.
    lines: for each part, the rates at up to 240 points of the phase; momenta: the same; at: the progress of the step,
    from 0 to 1. loss: None where the recipe weighs classes. after: the loss of the same batch after the step.
    """

    values: Step
    compared: list[Compared]
    first: Difference | None
    plan: Plan
    lines: list[list[float]]
    momenta: list[float]
    at: float
    rows: list[LayerRow]
    shapes: list[Shape]
    norms: list[Norm]
    loss: LossByHand | None
    before: float
    after: float


def step_by_hand(moment: Moment) -> StepByHand:
    """Compute the step of a moment by hand."""
    network, plan, run = deepcopy(moment.model), plan_of(moment), moment.run
    parts = parts_of(moment, network)
    optimizer = Adam(transfer.param_groups(parts, WEIGHT_DECAY), lr=1e-3, decoupled=True)
    transfer.freeze_to(len(parts) - 1 if moment.phase == "frozen" else 0, parts, optimizer)
    named = dict(network.named_parameters())
    optimizer.state |= {named[name]: deepcopy(state) for name, state in moment.state.items()}
    rates, momentum = plan.schedules
    trace, gradients = Trace(), HeadGradients()
    callbacks = [loop.ParamScheduler([rates[group["depth"]] for group in optimizer.param_groups], momentum)]
    accumulate = run.chosen["accumulate"]
    callbacks += [loop.GradientAccumulation(accumulate * run.chosen["batch"])] if accumulate > 1 else []
    callbacks += [gradients, *([loop.GradientClip(run.recipe.clip)] if run.recipe.clip else []), trace]
    _, epochs, _, batches = moment.batch.progress_at
    learner = loop.Learner(network, range(batches), (), None, optimizer, predict=partial(predict, moment))
    learner.epochs, learner.callbacks = epochs, callbacks
    records, norms = [], norms_of(network)
    for batch in moment.batches:
        learner.progress, learner.loss_func = progress_at(batch), loss_of(moment, batch)
        set_generator(batch)
        with Recording(network, norms) as recorded:
            learner.one_batch(batch.x, batch.y)
        records.append(recorded)
    ours, batch = trace.steps[0], moment.batch
    for norm in norms.values():
        finish_norm(norm, ours)
    set_generator(batch)
    with torch.no_grad():
        after = float(loss_of(moment, batch)(predict(moment, network, batch.x), batch.y))
    losses = None
    if run.recipe.class_weights == "none":
        losses = loss_by_hand(moment, records, gradients)
    points = [place / (POINTS - 1) for place in range(POINTS)]
    return StepByHand(
        values=ours,
        compared=compare(ours, moment.after),
        first=first_difference([ours], [moment.after]),
        plan=plan,
        lines=[[rate(point) for point in points] for rate in rates],
        momenta=[momentum(point) for point in points],
        at=progress_at(batch),
        rows=layer_rows(moment, network, ours),
        shapes=records[moment.wanted].shapes,
        norms=list(norms.values()),
        loss=losses,
        before=moment.steps[moment.number - 1]["loss"],
        after=after,
    )


# Rates ---------------------------------------------------------------------------------------------------------------


def parts_of(moment: Moment, network: nn.Module) -> list[nn.Module]:
    """The parts with a learning rate each: lower body, upper body and head of a ResNet, else body and head."""
    body, head = network
    split = moment.spec.architecture.split
    return [body, head] if split is None else [body[:split], body[split:], head]


def plan_of(moment: Moment) -> Plan:
    """The rates of the phase, as `kit.train` and fastai's `fine_tune` set them."""
    rate, lr_mult = moment.run.chosen["rate"], moment.run.chosen["lr_mult"]
    count = len(parts_of(moment, moment.model))
    if moment.spec.head == LINEAR:
        return Plan(transfer.discriminative_lrs(rate / lr_mult, rate, count), 0.25, 25.0)
    if not moment.spec.weights.pretrained:
        return Plan([rate] * count, 0.25, 25.0)
    if moment.phase == "frozen":
        return Plan([rate / 10] * (count - 1) + [rate], 0.99, 25.0)
    return Plan(transfer.discriminative_lrs(rate / 2 / lr_mult, rate / 2, count), 0.3, 5.0)


def progress_at(batch: Batch) -> float:
    """The progress of the phase before a batch, added up batch by batch as `loop.Learner` does."""
    epoch, epochs, number, batches = batch.progress_at
    progress = epoch / epochs
    for _ in range(number):
        progress += 1.0 / (batches * epochs)
    return progress


# The forward pass -----------------------------------------------------------------------------------------------------


def set_generator(batch: Batch) -> None:
    """Let dropout draw what it drew in the training."""
    cpu, gpu = batch.generator
    torch.set_rng_state(cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu, batch.x.device)


def predict(moment: Moment, network: nn.Module, x: Tensor) -> Tensor:
    """The network's outputs in the precision of the training, as float32."""
    dtype = DTYPES.get(moment.precision.name)
    with torch.autocast(x.device.type, dtype) if dtype else nullcontext():
        return network(x).float()


def loss_of(moment: Moment, batch: Batch) -> Callable[[Tensor, Tensor], Tensor]:
    """PyTorch's loss of a batch; with mixup and cutmix of both targets, in their shares."""
    if batch.blended is None:
        return moment.loss_func
    others, share = batch.blended

    def blended(outputs: Tensor, y: Tensor) -> Tensor:
        with NoneReduce(moment.loss_func) as each:
            return torch.lerp(each(outputs, others), each(outputs, y), share).mean()

    return blended


# Comparison -----------------------------------------------------------------------------------------------------------

KINDS = {
    "batch": "the batch",
    "lr of": "learning rates",
    "momentum": "momentum",
    "loss": "loss",
    "gradient of": "gradients",
    "statistic": "what batch norms remember",
    "mean of": "Adam's mean of gradients",
    "squares of": "Adam's mean of squares",
    "step of": "Adam's count of steps",
    "parameter": "weights after the step",
}


def compare(ours: Step, theirs: Step) -> list[Compared]:
    """The largest difference of each kind of values."""
    rows = []
    for start, kind in KINDS.items():
        names = [name for name in theirs if name.startswith(start)]
        pairs = [(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name])) for name in names]
        if pairs:
            count = sum(mine.numel() for mine, _ in pairs)
            differ = sum(int((mine != other).sum()) for mine, other in pairs)
            largest = max(float((mine.double() - other.double()).abs().max()) for mine, other in pairs if mine.numel())
            rows.append(Compared(kind, count, differ, largest))
    return rows


def layer_rows(moment: Moment, network: nn.Module, ours: Step) -> list[LayerRow]:
    """A row for each layer with parameters, from the first to the last."""
    part_of = {id(p): part for part, one in enumerate(parts_of(moment, network)) for p in one.parameters()}
    before, rows = dict(moment.model.named_parameters()), []
    for name, module in network.named_modules():
        own = {f"{name}.{leaf}": p for leaf, p in module.named_parameters(recurse=False)}
        if not own:
            continue
        part = part_of[id(next(iter(own.values())))]
        grads = [ours[f"gradient of {one}"] for one in own if f"gradient of {one}" in ours]
        updates = [ours[f"parameter {one}"] - before[one].detach() for one in own]
        rows.append(
            LayerRow(
                name=name,
                kind=kind_of(module),
                count=sum(p.numel() for p in own.values()),
                part=part,
                rate=ours[f"lr of group {2 * part}"],
                frozen=not any(p.requires_grad for p in own.values()),
                weight=norm_of(before[one].detach() for one in own),
                gradient=norm_of(grads),
                update=norm_of(updates),
            )
        )
    return rows


def norm_of(tensors: Any) -> float:
    """The norm of all elements of some tensors; 0 of none."""
    norms = [one.float().norm() for one in tensors]
    return float(torch.stack(norms).norm()) if norms else 0.0
