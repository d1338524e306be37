"""One step of a training computed again with `kit.mechanism`, beside the values that PyTorch and fastai computed.

by_hand = step_by_hand(replay_step(run, step=17)); by_hand.first     # None: not one bit differs

Written out by hand are the loop, the schedules, freezing, the optimiser, and the loss and the head with their
gradients. The body's convolutions and their gradients are PyTorch's in both.
"""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from fastai.layers import NoneReduce
from torch import Tensor, nn

from kit.explain.replay import Batch, Moment
from kit.mechanism import layers, loop, schedules, transfer
from kit.mechanism.activations import identity, sigmoid, softmax
from kit.mechanism.losses import one_hot
from kit.mechanism.optimizers import Adam
from kit.mechanism.trace import Difference, Step, Trace, first_difference
from kit.model.heads import LINEAR, Range, classifier
from kit.tasks.text import CLASSIFICATION, MULTILABEL
from kit.train.precision import DTYPES

WEIGHT_DECAY = 0.01  # fastai's default
POINTS = 240
Shape = tuple[str, tuple[int, ...]]


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


@dataclass
class Norm:
    """A batch norm in training mode: what it remembered before and after, of its first feature, the mean of the batch,
    and the largest difference of all running statistics by hand from PyTorch's."""

    name: str
    momentum: float
    by_hand: layers.BatchNorm
    before: float
    mean: float = 0.0
    after: float = 0.0
    moved: float = 0.0
    largest: float = 0.0


@dataclass
class Recorded:
    """What hooks saw of one forward pass: kind and shape of the output of each layer, the features that the head got,
    its dropout masks, and the outputs of the last linear layer."""

    shapes: list[Shape] = field(default_factory=list)
    features: Tensor | None = None
    masks: list[Tensor] = field(default_factory=list)
    outputs: Tensor | None = None


@dataclass(frozen=True)
class HeadLayer:
    """A layer of the head: the norm of the gradient with respect to its input, and of its parameters, by hand; the
    largest difference of the latter from autograd's."""

    kind: str
    layer: layers.Layer
    shape: tuple[int, ...]
    to_input: float
    to_parameters: float | None
    largest: float | None


@dataclass(frozen=True)
class LossByHand:
    """Loss and gradient of the wanted batch by hand.

    loss: the object of `kit.mechanism.layers`. outputs, predictions, targets: (n, outputs). gradient: of the loss with
    respect to the outputs. value: the loss; theirs: PyTorch's. largest: difference of the gradient from autograd's.
    head: the layers of the head from the last to the first.
    """

    loss: Any
    outputs: Tensor
    predictions: Tensor
    targets: Tensor
    gradient: Tensor
    value: float
    theirs: float
    largest: float
    head: list[HeadLayer]


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


class Recording:
    """Records the forward passes of a network inside the block."""

    def __init__(self, network: nn.Module, norms: dict[nn.Module, Norm]):
        self.network, self.norms, self.recorded = network, norms, Recorded()

    def __enter__(self) -> Recorded:
        body, head = self.network
        self.hooks = [one.register_forward_hook(self._shape) for one in [*stages(body), *stages(head)]]
        after_pooling = list(classifier(self.network))
        self.hooks.append(after_pooling[0].register_forward_pre_hook(self._features))
        last = next(one for one in reversed(after_pooling) if isinstance(one, nn.Linear))
        self.hooks.append(last.register_forward_hook(self._outputs))
        for one in after_pooling:
            if isinstance(one, nn.Dropout):
                self.hooks.append(one.register_forward_hook(self._mask))
        for module, norm in self.norms.items():
            self.hooks.append(module.register_forward_pre_hook(partial(self._norm, norm)))
        return self.recorded

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _shape(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.recorded.shapes.append((kind_of(module), tuple(output.shape)))

    def _features(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        self.recorded.features = inputs[0]

    def _outputs(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
        self.recorded.outputs = output

    def _mask(self, module: nn.Dropout, inputs: Any, output: Tensor) -> None:
        self.recorded.masks.append((output.detach() != 0).float() / (1 - module.p))

    def _norm(self, norm: Norm, module: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0].detach().float().contiguous()
        norm.mean = float(x.transpose(0, 1).flatten(1)[0].mean())
        norm.by_hand(x)


def stages(part: nn.Module) -> list[nn.Module]:
    """The modules of a body or head whose outputs are shown."""
    children = list(part.children())
    while len(children) == 1:
        children = list(children[0].children())
    return children


@torch.no_grad()
def shapes_of(network: nn.Module, size: int) -> list[Shape]:
    """The shapes of one image of `size` pixels a side on its way through a network, in evaluation mode."""
    device = next(network.parameters()).device
    with Recording(network, {}) as recorded:
        network.eval()(torch.zeros(1, 3, size, size, device=device))
    return recorded.shapes


def kind_of(module: nn.Module) -> str:
    """A layer in a few words: its class, and the size of a convolution's filters."""
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
        return f"{name} {module.kernel_size[0]} × {module.kernel_size[1]}{stride}"
    if isinstance(module, nn.Sequential) and len(module):
        return f"{len(module)} × {type(module[0]).__name__}"
    return name


def norms_of(network: nn.Module) -> dict[nn.Module, Norm]:
    """The batch norms in training mode, each with one by hand that starts from what it remembers."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.track_running_stats:
            by_hand = layers.BatchNorm(module.num_features, module.eps, module.momentum)
            by_hand.running_mean = module.running_mean.clone()
            by_hand.running_var = module.running_var.clone()
            by_hand.weight, by_hand.bias = (p.detach().clone() for p in (module.weight, module.bias))
            found[module] = Norm(name, module.momentum, by_hand, float(module.running_mean[0]))
            found[module].moved = module.running_mean.clone()
    return found


def finish_norm(norm: Norm, ours: Step) -> None:
    """Compare the running statistics by hand with PyTorch's after the step."""
    mean, variance = (ours[f"statistic {norm.name}.{name}"] for name in ("running_mean", "running_var"))
    differences = ((norm.by_hand.running_mean - mean).abs().max(), (norm.by_hand.running_var - variance).abs().max())
    norm.after, norm.largest = float(mean[0]), float(max(differences))
    norm.moved = float((mean - norm.moved).norm() / norm.moved.norm().clamp(min=1e-12))


# Loss and head --------------------------------------------------------------------------------------------------------


class HeadGradients(loop.Callback):
    """Keeps all gradients from before clipping."""

    def before_step(self, learner: loop.Learner) -> None:
        self.grads = {
            name: p.grad.detach().clone() for name, p in learner.model.named_parameters() if p.grad is not None
        }


def loss_and_target(moment: Moment, batch: Batch, outputs: Tensor) -> tuple[Any, Callable, Tensor]:
    """The loss by hand, the activation before it, and its targets (n, outputs)."""
    task, recipe = moment.run.recipe.task, moment.run.recipe
    if task == CLASSIFICATION:
        classes = outputs.shape[1]
        target = one_hot(batch.y, classes)
        if batch.blended:
            others, share = batch.blended
            target = torch.lerp(one_hot(others, classes), target, share.reshape(-1, 1))
        if recipe.label_smoothing:
            target = target * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
        return layers.SoftmaxCrossEntropy(), softmax, target
    if task == MULTILABEL:
        return layers.SigmoidCrossEntropy(), sigmoid, batch.y.float()
    limits = moment.spec.output_range
    low, high = (end.to(outputs.device) for end in (limits.low, limits.high))
    return layers.MeanSquaredError(), sigmoid if limits.bounded else identity, (batch.y - low) / (high - low)


def loss_by_hand(moment: Moment, records: list[Recorded], gradients: HeadGradients) -> LossByHand:
    """Forward and backward through the head by hand, over all batches of the update."""
    modules = [one for one in classifier(moment.model) if not isinstance(one, Range)]
    by_hand = [layer_by_hand(module) for module in modules]
    found = None
    for place, (batch, record) in enumerate(zip(moment.batches, records, strict=True)):
        x, masks = record.features.detach().float(), iter(record.masks)
        for layer in by_hand:
            if isinstance(layer, layers.Dropout):
                layer.mask = next(masks) if layer.training else torch.ones_like(x)
                x = x * layer.mask
            else:
                x = layer(x)
        loss, activation, target = loss_and_target(moment, batch, x)
        divisor = moment.run.chosen["accumulate"] * moment.run.chosen["batch"] / len(x)
        divisor = divisor if moment.run.chosen["accumulate"] > 1 else 1.0
        is_number = isinstance(loss, layers.MeanSquaredError)
        last = layers.Sigmoid() if is_number and activation is sigmoid else None
        value = loss(last(x) if last else x, target)
        grad = last.backward(loss.backward()) if last else loss.backward()
        theirs = record.outputs.grad.float() * divisor
        rows, flow = [], grad / divisor
        for module, layer in reversed(list(zip(modules, by_hand, strict=True))):
            flow = layer.backward(flow)
            rows.append((kind_of(module), layer, tuple(flow.shape), float(flow.norm())))
        if place == moment.wanted:
            difference = float((grad - theirs).abs().max())
            found = loss, x, activation(x), target, grad, float(value), difference, rows
    loss, outputs, predictions, target, grad, value, difference, rows = found
    names = {id(module): name for name, module in moment.model.named_modules()}
    head = []
    for (kind, layer, shape, to_input), module in zip(rows, reversed(modules), strict=True):
        pairs = [
            (getattr(layer, name).grad, gradients.grads[f"{names[id(module)]}.{name}"])
            for name, _ in module.named_parameters(recurse=False)
        ]
        norm = float(torch.stack([mine.norm() for mine, _ in pairs]).norm()) if pairs else None
        largest = max((float((mine - other).abs().max()) for mine, other in pairs), default=None)
        head.append(HeadLayer(kind, layer, shape, to_input, norm, largest))
    number = moment.number - 1
    return LossByHand(loss, outputs, predictions, target, grad, value, moment.steps[number]["loss"], difference, head)


def layer_by_hand(module: nn.Module) -> layers.Layer:
    """A layer of a head by hand, with copies of the weights of PyTorch's."""
    match module:
        case nn.Linear():
            layer = layers.Linear(module.in_features, module.out_features)
            layer.weight = module.weight.detach().clone()
            zeros = layer.weight.new_zeros(module.out_features)
            layer.bias = zeros if module.bias is None else module.bias.detach().clone()
        case nn.modules.batchnorm._BatchNorm():
            layer = layers.BatchNorm(module.num_features, module.eps, module.momentum)
            for name in ("weight", "bias", "running_mean", "running_var"):
                setattr(layer, name, getattr(module, name).detach().clone())
        case nn.Dropout():
            layer = layers.Dropout(module.p)
        case _:
            layer = layers.ReLU()
    layer.training = module.training
    return layer


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
