"""Adam for all parameters at once is fastai's Adam in every bit."""

import copy
from functools import partial

import pytest
import torch
from fastai.optimizer import Adam as FastaiAdam
from torch import nn

from kit.model.adam import Adam


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def optimizer(make, net):
    """Two groups; norms and biases without weight decay, as fastai's Learner says it."""
    opt = make([list(net[:2].parameters()), list(net[2:].parameters())], lr=1e-2)
    opt.set_hyper("lr", slice(1e-3, 1e-2))
    for one in net.parameters():
        if one.ndim == 1:
            opt.state[one]["do_wd"] = False
    return opt


@pytest.mark.parametrize("options", [{}, {"decouple_wd": False, "wd": 0.1}, {"mom": 0.7, "eps": 1e-8, "wd": 0}])
def test_each_step_and_state_is_fastais_in_every_bit(options):
    nets = [network(), network()]
    opts = [optimizer(partial(make, **options), net) for make, net in zip((FastaiAdam, Adam), nets, strict=True)]
    for step in range(8):
        if step == 2:  # a frozen body has steps behind it that the head has not
            opts[0].freeze_to(-1), opts[1].freeze_to(-1)
            for net in nets:
                for one in net[:2].parameters():
                    one.grad = None
        if step == 5:
            opts[0].unfreeze(), opts[1].unfreeze()
        x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for net, opt in zip(nets, opts, strict=True):
            opt.set_hyper("mom", 0.9 - 0.01 * step)
            net(x).square().mean().backward()
            opt.step()
            opt.zero_grad()
        for theirs, ours in zip(*(net.parameters() for net in nets), strict=True):
            assert torch.equal(theirs, ours)
    for theirs, ours in zip(*(opt.state_dict()["state"] for opt in opts), strict=True):
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(torch.as_tensor(theirs[name]), torch.as_tensor(ours[name])) for name in theirs)


def test_its_state_can_be_loaded_into_fastais_and_back():
    net = network()
    theirs, ours = optimizer(FastaiAdam, net), optimizer(Adam, copy.deepcopy(net))
    net(torch.ones(2, 3, 8, 8)).sum().backward()
    theirs.step()
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert [one["step"] for one in ours.state.values()] == [1] * 6
    assert ours.hypers == theirs.hypers
