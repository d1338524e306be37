"""Default arguments: an argument that PyTorch or fastai has by the same name has the same default here."""

from inspect import signature

import pytest
import torch
from fastai.vision.all import Learner
from torch import nn

from kit.mechanism import batches, convolution, layers, optimizers, precision, schedules, transfer

PAIRS = [
    (batches.DataLoader, torch.utils.data.DataLoader, {"drop_last"}),
    (convolution.Conv2d, nn.Conv2d, {"stride", "padding", "bias"}),
    (convolution.ConvTranspose2d, nn.ConvTranspose2d, {"stride", "padding"}),
    (convolution.Pool2d, nn.MaxPool2d, {"stride", "padding"}),
    (convolution.im2col, nn.Unfold, {"stride", "padding"}),
    (convolution.col2im, nn.Fold, {"stride", "padding"}),
    (layers.BatchNorm, nn.BatchNorm2d, {"eps", "momentum"}),
    (layers.Layer.train, nn.Module.train, {"mode"}),
    (optimizers.SGD, torch.optim.SGD, {"momentum", "nesterov"}),
    (optimizers.Optimizer, torch.optim.SGD, {"weight_decay"}),
    (optimizers.AdaGrad, torch.optim.Adagrad, {"eps"}),
    (optimizers.RMSprop, torch.optim.RMSprop, {"alpha", "eps"}),
    (optimizers.AdamW, torch.optim.AdamW, {"weight_decay"}),
    (precision.GradScaler, torch.amp.GradScaler, {"init_scale", "growth_factor", "backoff_factor", "growth_interval"}),
    (schedules.one_cycle, Learner.fit_one_cycle, {"pct_start", "div", "div_final"}),
    (transfer.fit_one_cycle, Learner.fit_one_cycle, {"pct_start", "div"}),
    (transfer.fine_tune, Learner.fine_tune, {"base_lr", "freeze_epochs", "lr_mult"}),
]


def defaults(function) -> dict:
    return {name: one.default for name, one in signature(function).parameters.items() if one.default is not one.empty}


@pytest.mark.parametrize(("ours", "theirs", "names"), PAIRS, ids=[ours.__qualname__ for ours, *_ in PAIRS])
def test_an_argument_of_the_same_name_has_the_same_default(ours, theirs, names):
    mine, judge = defaults(ours), defaults(theirs)
    assert {name: mine[name] for name in names} == {name: judge[name] for name in names}
