"""The training by hand is equal to fastai's bit for bit.

Both start with the same weights, seeds and batches. After every step all values are recorded: batch, learning rates,
momentum, loss, gradients, weights, batch norm statistics and optimizer state. `first_difference` then finds none.
"""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiLoader
from fastai.torch_core import apply_init
from fastai.vision.all import SGD as FastaiSGD
from fastai.vision.all import Adam as FastaiAdam
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    GradientAccumulation,
    GradientClip,
    Learner,
    create_head,
    default_split,
)
from fastai.vision.learner import _resnet_split
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models import resnet18

from kit.mechanism import loop, transfer
from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.convolution import Conv2d, GlobalAvgPool
from kit.mechanism.layers import BatchNorm, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import SGD, Adam, AdamW
from kit.mechanism.schedules import one_cycle
from kit.mechanism.trace import Trace, digest, first_difference, snapshot
from kit.train.precision import Precision, training_in

OPTIMIZERS = {
    "SGD with momentum": (partial(FastaiSGD, mom=0.9, wd=0.01), partial(SGD, momentum=0.9, decoupled=True)),
    "Adam": (FastaiAdam, partial(Adam, decoupled=True)),
}
ON_A_SMALL_NET = {**OPTIMIZERS, "AdamW": (FastaiAdam, AdamW)}


# Both trainings ----------------------------------------------------------------------------------------------------


class Witness(Callback):
    """Records fastai's steps as `Trace` records ours."""

    def __init__(self, keep):
        super().__init__()
        self.keep, self.steps = keep, []

    def after_step(self):
        hypers = self.opt.hypers
        rates = {f"lr of group {2 * i + k}": float(hyper["lr"]) for i, hyper in enumerate(hypers) for k in (0, 1)}
        rates["momentum"] = hypers[0]["mom"]
        step = snapshot(self.xb[0], self.yb[0], self.learn.loss, rates, self.model, self.state)
        self.steps.append(self.keep(step))

    def state(self, p):
        """The optimizer state of a parameter, with our names for fastai's."""
        state = self.opt.state[p]
        adam = "sqr_avg" in state
        names = {"grad_avg": "mean" if adam else "velocity", "sqr_avg": "squares", "step": "step"}
        return {names[key]: value for key, value in state.items() if key in names}


def same_seeds(dls):
    """Seed every random number generator."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    dls.train.rng, dls.valid.rng = random.Random(1), random.Random(2)


def fastai_run(
    dls, model, splitter, opt_func, cbs=(), precision=None, keep=lambda step: step, fit="fine_tune", **fine_tune
):
    same_seeds(dls)
    learn = Learner(dls, copy.deepcopy(model), CrossEntropyLossFlat(), opt_func=opt_func, splitter=splitter)
    witness = Witness(keep)
    with learn.no_bar(), learn.no_logging(), training_in(learn, precision or Precision("fp32", False, "")) as casts:
        getattr(learn, fit)(*fine_tune.pop("arguments"), cbs=[*cbs, *casts, witness], **fine_tune)
    return witness.steps


def plain_cross_entropy(prediction, y):
    """Cross entropy of plain tensors, because fastai's loaders give tensor subclasses."""
    return nn.functional.cross_entropy(prediction.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor))


def call(model, x):
    return model(x)


def by_hand_learner(dls, model, parts, optimizer, predict=call):
    groups = optimizer(transfer.param_groups(parts, weight_decay=0.01), lr=1e-3)
    return loop.Learner(model, dls.train, dls.valid, plain_cross_entropy, groups, predict=predict)


def run_by_hand(dls, model, parts_of, optimizer, callbacks=(), predict=call, keep=lambda step: step, **fine_tune):
    same_seeds(dls)
    model = copy.deepcopy(model)
    parts = parts_of(model)
    trace = Trace(keep)
    learner = by_hand_learner(dls, model, parts, optimizer, predict)
    transfer.fine_tune(learner, parts, *fine_tune.pop("arguments"), callbacks=[*callbacks, trace], **fine_tune)
    return trace.steps


# Data and networks ---------------------------------------------------------------------------------------------------


def digits(size, channels, count):
    """`count` of scikit-learn's real digits as (count, channels, size, size), values 0 to 1, and their labels."""
    bunch = load_digits()
    images = torch.tensor(bunch.images[:count], dtype=torch.float32)[:, None] / 16
    images = nn.functional.interpolate(images, size=size, mode="bilinear")
    return images.expand(-1, channels, -1, -1).contiguous(), torch.tensor(bunch.target[:count])


def digit_loaders(size=8, channels=1, count=160, batch=16):
    x, y = digits(size, channels, count)
    pairs = list(zip(x, y, strict=True))
    held_out = count // 4
    train = FastaiLoader(pairs[held_out:], bs=batch, shuffle=True, drop_last=True)
    return DataLoaders(train, FastaiLoader(pairs[:held_out], bs=64), device="cpu")


def small_net():
    torch.manual_seed(0)
    body = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
    )
    return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)))


def small_parts(model):
    return [model[0], model[1]]


def small_split(model):
    return [list(part.parameters()) for part in model]


def fastai_head(channels, classes):
    head = create_head(channels, classes)
    apply_init(head, nn.init.kaiming_normal_)
    return head


def big_net(classes=10, head=transfer.create_head):
    """torchvision's resnet18 with a new head."""
    torch.manual_seed(0)
    body = transfer.create_body(resnet18())
    return nn.Sequential(body, head(512, classes))


def big_parts(model):
    """The three parts into which fastai splits a ResNet."""
    return [model[0][:6], model[0][6:], model[1]]


# The comparisons ------------------------------------------------------------------------------------------------------


def test_the_head_made_by_hand_is_fastais_head():
    torch.manual_seed(3)
    theirs = fastai_head(512, 10)
    torch.manual_seed(3)
    ours = transfer.create_head(512, 10)
    for mine, theirs_ in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, theirs_)
    x, outputs = torch.randn(4, 512, 3, 3), []
    for head in (ours, theirs):
        torch.manual_seed(4)  # the same units drop out
        outputs.append((head(x), head.eval()(x)))
    (trained, predicted), (trained_, predicted_) = outputs
    assert torch.equal(trained, trained_) and torch.equal(predicted, predicted_)
    assert not torch.equal(trained, predicted)


def test_the_loaders_give_the_same_batches():
    x, y = digits(8, 1, 50)
    theirs = FastaiLoader(list(zip(x, y, strict=True)), bs=8, shuffle=True)
    theirs.rng = random.Random(5)
    ours = DataLoader(Dataset(x, y), 8, shuffle=True, rng=random.Random(5))
    for _ in range(3):
        for (x1, y1), (x2, y2) in zip(ours, theirs, strict=True):
            assert torch.equal(x1, x2)
            assert torch.equal(y1, y2)


@pytest.mark.parametrize("name", ON_A_SMALL_NET)
def test_a_small_net_is_equal_bit_for_bit(name):
    dls, start, (theirs, ours) = digit_loaders(), small_net(), ON_A_SMALL_NET[name]
    fine_tune = {"arguments": (3, 1e-2), "freeze_epochs": 2}
    first = fastai_run(dls, start, small_split, theirs, **fine_tune)
    second = run_by_hand(dls, start, small_parts, ours, **fine_tune)
    assert len(first) == 5 * len(dls.train)
    assert first_difference(first, second) is None


def test_the_defaults_of_fine_tune_are_fastais():
    dls, start = digit_loaders(), small_net()
    first = fastai_run(dls, start, small_split, FastaiAdam, arguments=(1,))
    second = run_by_hand(dls, start, small_parts, partial(Adam, decoupled=True), arguments=(1,))
    assert len(first) == 2 * len(dls.train)
    assert first_difference(first, second) is None


def only_parameters(step):
    return {name: value for name, value in step.items() if name.startswith("parameter")}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_defaults_of_one_cycle_are_fastais_and_sgd_without_momentum_gets_none(momentum):
    """fastai sets a momentum that plain SGD does not use, so only the weights are compared."""
    dls, start = digit_loaders(), small_net()
    opt_func = partial(FastaiSGD, mom=momentum, wd=0.01)
    first = fastai_run(
        dls, start, small_split, opt_func, keep=only_parameters, fit="fit_one_cycle", arguments=(2, 1e-2)
    )
    same_seeds(dls)
    model, trace = copy.deepcopy(start), Trace(only_parameters)
    parts, optimizer = small_parts(model), partial(SGD, momentum=momentum, decoupled=True)
    transfer.fit_one_cycle(by_hand_learner(dls, model, parts, optimizer), 2, [1e-2, 1e-2], callbacks=[trace])
    assert len(first) == 2 * len(dls.train)
    assert first_difference(first, trace.steps) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resnet18_is_equal_bit_for_bit(name):
    dls, (theirs, ours) = digit_loaders(32, 3, 32, 8), OPTIMIZERS[name]
    fine_tune = {"arguments": (1, 2e-3), "freeze_epochs": 1}
    first = fastai_run(dls, big_net(head=fastai_head), _resnet_split, theirs, keep=digest, **fine_tune)
    second = run_by_hand(dls, big_net(), big_parts, ours, keep=digest, **fine_tune)
    assert len(first) == 6
    assert first_difference(first, second) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accumulated_and_clipped_gradients_are_equal_bit_for_bit(name):
    dls, start, (theirs, ours) = digit_loaders(batch=10), small_net(), OPTIMIZERS[name]
    fine_tune = {"arguments": (2, 1e-2)}
    first = fastai_run(dls, start, small_split, theirs, cbs=[GradientAccumulation(30), GradientClip(0.1)], **fine_tune)
    callbacks = [loop.GradientAccumulation(30), loop.GradientClip(0.1)]
    second = run_by_hand(dls, start, small_parts, ours, callbacks=callbacks, **fine_tune)
    assert len(first) == 3 * len(dls.train) // 3
    assert first_difference(first, second) is None


def in_bf16(model, x):
    """What kit's training does on a CPU: autocast for the CPU, and a float32 result."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(x.contiguous(memory_format=torch.channels_last)).float()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_in_bf16_is_equal_bit_for_bit(name):
    dls, start, (theirs, ours) = digit_loaders(), small_net(), OPTIMIZERS[name]
    seen = []
    start[0][0].register_forward_hook(lambda module, inputs, output: seen.append((module.training, output.dtype)))
    fine_tune = {"arguments": (2, 1e-2)}
    first = fastai_run(dls, start, small_split, theirs, precision=Precision("bf16", True, ""), **fine_tune)
    theirs_seen, seen[:] = list(seen), []
    start = start.to(memory_format=torch.channels_last)
    second = run_by_hand(dls, start, small_parts, ours, predict=in_bf16, **fine_tune)
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}
    assert theirs_seen == seen
    assert first_difference(first, second) is None


def test_our_backward_instead_of_autograd_stays_within_1e_9_after_20_steps():
    """A network of our layers in float64, with gradients by hand, compared with a torch module in fastai."""
    x, y = digits(8, 1, 128)
    x = x.double()
    torch.manual_seed(0)
    net = Sequential(Conv2d(1, 6, 3, padding=1), BatchNorm(6), ReLU(), Conv2d(6, 8, 3, stride=2), GlobalAvgPool())
    net = Sequential(*net.layers, Linear(8, 10)).to(torch.float64)
    judge = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    ).double()
    with torch.no_grad():
        for theirs, ours in zip(judge.parameters(), net.parameters(), strict=True):
            theirs.copy_(ours)
    loader = FastaiLoader(list(zip(x, y, strict=True)), bs=32, shuffle=True)
    loader.rng = random.Random(7)
    learn = Learner(DataLoaders(loader, loader, device="cpu"), judge, CrossEntropyLossFlat())
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(5, 2e-3)
    assert not torch.equal(judge[0].weight.detach(), net.layers[0].weight)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": [p for p in net.parameters() if p.ndim == 1]}]
    batches = DataLoader(Dataset(x, y), 32, shuffle=True, rng=random.Random(7))
    learner = loop.Learner(
        net, batches, batches, SoftmaxCrossEntropy(), Adam(groups, 1e-2, decoupled=True), loop.backward_by_hand
    )
    rate, momentum = one_cycle(2e-3)
    learner.fit(5, [loop.ParamScheduler([rate, rate], momentum)])
    for theirs, ours in zip(judge.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.shared
def test_pets_photos_with_augmentation_are_equal_bit_for_bit(pets, tmp_path):
    """Real photos through kit's DataBlock, presizing and fastai's batch augmentation; resnet18; Adam."""
    from kit import Recipe, data

    for photo in sorted(pets.glob("*.jpg"))[::10]:
        (tmp_path / photo.name).symlink_to(photo)
    recipe = Recipe(label="is_cat", size=64, batch=8, workers=0, device="cpu")
    dls = data.blocks(recipe).dataloaders(data.table(tmp_path, label="is_cat", follow_links=True), bs=8, num_workers=0)
    start, fine_tune = big_net(2), {"arguments": (2, 2e-3)}
    first = fastai_run(dls, start, _resnet_split, FastaiAdam, keep=digest, **fine_tune)
    second = run_by_hand(dls, start, big_parts, partial(Adam, decoupled=True), keep=digest, **fine_tune)
    assert len(first) == 3 * len(dls.train) > 6
    assert first_difference(first, second) is None


def test_the_comparison_finds_a_single_changed_bit():
    dls, start, (theirs, ours) = digit_loaders(), small_net(), OPTIMIZERS["Adam"]
    first = fastai_run(dls, start, small_split, theirs, arguments=(1, 1e-2))
    with torch.no_grad():
        start[0][0].weight[3, 0, 1, 2] = torch.nextafter(start[0][0].weight[3, 0, 1, 2], torch.tensor(9.0))
    second = run_by_hand(dls, start, small_parts, ours, arguments=(1, 1e-2))
    assert first_difference(first, second).step == 0


def test_fastai_splits_a_resnet_where_we_do():
    model = big_net()
    ours = [[id(p) for p in part.parameters()] for part in big_parts(model)]
    theirs = [[id(p) for p in group] for group in _resnet_split(model)]
    assert ours == theirs
    assert len(list(default_split(model))) == 2
