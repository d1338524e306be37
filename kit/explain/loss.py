"""Loss and head of a step by hand: forward, backward, and the largest differences from autograd's gradients.

loss_by_hand(moment, records, gradients).largest # 0.0
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit.explain.recording import Recorded, kind_of
from kit.explain.replay import Batch, Moment
from kit.mechanism import layers, loop
from kit.mechanism.activations import identity, sigmoid, softmax
from kit.mechanism.losses import one_hot
from kit.model.heads import Range, classifier
from kit.tasks.text import CLASSIFICATION, MULTILABEL


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
