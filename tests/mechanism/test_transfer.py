"""Transfer learning, each of its parts on its own. That the whole is fastai's: test_same_as_fastai.py."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.loop import Callback, Learner
from kit.mechanism.optimizers import Adam
from kit.mechanism.transfer import cut, fine_tune, freeze_to, groups_by_depth, new_head, rates_by_depth


def small():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    return [body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))]


def test_a_resnet_loses_its_head_and_gets_one_for_the_new_classes():
    network = nn.Sequential(cut(resnet18()), new_head(512, 37))
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 37)
    assert network[0](torch.randn(2, 3, 64, 64)).shape == (2, 512, 2, 2)


def test_what_is_no_resnet_cannot_be_cut():
    with pytest.raises(ValueError, match="cut expects a ResNet that ends in pooling and Linear, .* ends in ReLU"):
        cut(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU()))


def test_weights_decay_and_norms_and_biases_do_not():
    parts = small()
    groups = groups_by_depth(parts, weight_decay=0.01)
    shapes = [([tuple(p.shape) for p in group["params"]], group["weight_decay"], group["depth"]) for group in groups]
    assert shapes == [
        ([(4, 1, 3, 3)], 0.01, 0),
        ([(4,), (4,)], 0.0, 0),
        ([(2, 4)], 0.01, 1),
        ([(2,)], 0.0, 1),
    ]


def test_every_parameter_of_resnet18_is_in_one_group():
    network = resnet18()
    groups = groups_by_depth(
        [nn.Sequential(*list(network.children())[:6]), nn.Sequential(*list(network.children())[6:])]
    )
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters()}


def test_freezing_keeps_the_norms_awake_and_makes_the_optimiser_forget():
    parts = small()
    optimizer = Adam(groups_by_depth(parts), lr=0.1)
    optimizer.state[parts[1][2].weight] = {"step": 3}
    freeze_to(1, parts, optimizer)
    assert not parts[0][0].weight.requires_grad
    assert parts[0][1].weight.requires_grad
    assert parts[1][2].weight.requires_grad
    assert optimizer.state == {}
    freeze_to(0, parts, optimizer)
    assert parts[0][0].weight.requires_grad


def test_rates_grow_by_equal_factors_with_depth():
    assert rates_by_depth(1e-5, 1e-3, 3) == pytest.approx([1e-5, 1e-4, 1e-3])
    assert rates_by_depth(1e-5, 1e-3, 1) == [1e-3]


class Watch(Callback):
    """Writes down how the parts of the network move, and at which rate."""

    def __init__(self, parts):
        self.parts, self.rows = parts, []

    def before_batch(self, learner):
        self.before = [part.clone() for part in self.weights()]

    def after_step(self, learner):
        moved = [not torch.equal(old, new) for old, new in zip(self.before, self.weights(), strict=True)]
        self.rows.append((*moved, learner.optimizer.param_groups[0]["lr"], learner.optimizer.param_groups[-1]["lr"]))

    def weights(self):
        return [self.parts[0][0].weight.detach(), self.parts[1][2].weight.detach()]


def test_first_the_head_alone_then_everything_the_lower_the_slower():
    parts, watch = small(), None
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = DataLoader(Dataset(x, (x.mean((1, 2, 3)) > 0).long()), 8)
    learner = Learner(
        nn.Sequential(*parts), batches, batches, nn.CrossEntropyLoss(), Adam(groups_by_depth(parts), 1e-3)
    )
    watch = Watch(parts)
    fine_tune(learner, parts, epochs=2, rate=1e-2, freeze_epochs=1, lr_mult=10, callbacks=[watch])
    frozen, whole = watch.rows[:4], watch.rows[4:]
    assert [row[:2] for row in frozen] == [(False, True)] * 4
    assert [row[:2] for row in whole] == [(True, True)] * 8
    assert all(head == pytest.approx(10 * body) for *_, body, head in watch.rows)
    assert max(head for *_, head in whole) == pytest.approx(5e-3, rel=0.05)
