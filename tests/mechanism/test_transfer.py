"""Transfer learning, each part on its own. For the whole compared with fastai: test_same_as_fastai.py."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models import resnet18

from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.loop import Callback, Learner
from kit.mechanism.optimizers import Adam
from kit.mechanism.transfer import (
    compare_starts,
    create_body,
    create_head,
    discriminative_lrs,
    fine_tune,
    freeze_to,
    network_parts,
    param_groups,
    scatter,
)


def small():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    return [body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))]


def test_the_head_of_a_resnet_is_replaced():
    network = nn.Sequential(create_body(resnet18()), create_head(512, 37))
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 37)
    assert network[0](torch.randn(2, 3, 64, 64)).shape == (2, 512, 2, 2)


def test_a_network_that_is_no_resnet_is_refused():
    with pytest.raises(ValueError, match="expected a ResNet that ends in pooling and Linear, .* ends in ReLU"):
        create_body(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU()))


def test_weights_decay_and_norms_and_biases_do_not():
    parts = small()
    groups = param_groups(parts, weight_decay=0.01)
    shapes = [([tuple(p.shape) for p in group["params"]], group["weight_decay"], group["depth"]) for group in groups]
    assert shapes == [
        ([(4, 1, 3, 3)], 0.01, 0),
        ([(4,), (4,)], 0.0, 0),
        ([(2, 4)], 0.01, 1),
        ([(2,)], 0.0, 1),
    ]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_batch_norms_of_any_dimension_are_spared_from_decay_and_freezing(norm):
    parts = [nn.Sequential(nn.Linear(2, 2, bias=False), norm(2)), nn.Linear(2, 2)]
    decayed, spared, *_ = param_groups(parts)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 2)]
    assert [tuple(p.shape) for p in spared["params"]] == [(2,), (2,)]
    freeze_to(1, parts, Adam(param_groups(parts), lr=0.1))
    assert [p.requires_grad for p in parts[0].parameters()] == [False, True, True]


def test_every_parameter_of_resnet18_is_in_one_group():
    network = resnet18()
    groups = param_groups([nn.Sequential(*list(network.children())[:6]), nn.Sequential(*list(network.children())[6:])])
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters()}


def test_freezing_keeps_batch_norms_trainable_and_resets_the_optimizer():
    parts = small()
    optimizer = Adam(param_groups(parts), lr=0.1)
    optimizer.state[parts[1][2].weight] = {"step": 3}
    freeze_to(1, parts, optimizer)
    assert not parts[0][0].weight.requires_grad
    assert parts[0][1].weight.requires_grad
    assert parts[1][2].weight.requires_grad
    assert optimizer.state == {}
    freeze_to(0, parts, optimizer)
    assert parts[0][0].weight.requires_grad


def test_learning_rates_grow_by_equal_factors_with_depth():
    assert discriminative_lrs(1e-5, 1e-3, 3) == pytest.approx([1e-5, 1e-4, 1e-3])
    assert discriminative_lrs(1e-5, 1e-3, 1) == [1e-3]


def test_frozen_weights_stay_bit_for_bit_also_after_an_earlier_training():
    """Gradients of 0 that the earlier training left would let weight decay go on."""
    parts = small()
    batches = DataLoader(Dataset(torch.randn(16, 1, 8, 8), torch.arange(16) % 2), 8)
    learner = Learner(
        nn.Sequential(*parts),
        batches,
        batches,
        nn.CrossEntropyLoss(),
        Adam(param_groups(parts, 0.1), 0.1, decoupled=True),
    )
    learner.fit(1)
    freeze_to(1, parts, learner.optimizer)
    before = [part.weight.clone() for part in (parts[0][0], parts[0][1], parts[1][2])]
    learner.fit(1)
    moved = [
        not torch.equal(old, part.weight)
        for old, part in zip(before, (parts[0][0], parts[0][1], parts[1][2]), strict=True)
    ]
    assert moved == [False, True, True]


@pytest.fixture(scope="module")
def digits():
    bunch = load_digits()
    return Dataset(torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, torch.tensor(bunch.target))


def test_a_new_network_classifies_images_and_a_body_can_be_given_a_new_head():
    body, head = network_parts(None, 5)
    assert head(body(torch.randn(2, 1, 16, 16))).shape == (2, 5)
    kept, other = network_parts(body, 3)
    assert kept is body and other(body(torch.randn(2, 1, 16, 16))).shape == (2, 3)
    assert [tuple(p.shape[:2]) for p in body.parameters() if p.ndim == 4] == [(16, 1), (32, 16), (32, 32)]


@pytest.mark.slow
def test_transfer_pays(digits):
    """Three seeds: 50 images of new classes are learned better after pretraining on others."""
    rows = [compare_starts(digits, seed) for seed in range(3)]
    gains = [row["after 0 to 4"] - row["random start"] for row in rows]
    assert min(gains) > 0 and sum(gains) / 3 > 0.1


def test_digits_are_scattered_over_larger_images(digits):
    state = torch.random.get_rng_state()
    images = scatter(digits.x[:200])
    torch.random.set_rng_state(state)
    assert images.shape == (200, 1, 16, 16) and torch.equal(scatter(digits.x[:200]), images)
    signs = images.mean((1, 2, 3)).sign()
    assert 60 < (signs > 0).sum() < 140
    centre = (images.abs() > 0.7).float()[:, 0]
    rows = (centre.sum(2) * torch.arange(16)).sum(1) / centre.sum((1, 2))
    assert rows.min() < 5 and rows.max() > 10
    for corner in (images[:, 0, 0, 0], images[:, 0, -1, -1]):  # noise alone, unless the digit is there
        assert 0.25 < corner.std() < 0.4


def test_a_scattered_digit_is_there_with_its_sign_and_noise_of_a_standard_deviation_of_0_3(digits):
    torch.manual_seed(0)
    x = digits.x[:200]
    images = scatter(x, size=8)  # one place
    sign = (images * x).sum((1, 2, 3), keepdim=True).sign()
    assert (images - sign * x).std().item() == pytest.approx(0.3, rel=0.03)
    anywhere = scatter(x).abs().mean() - 0.3 * math.sqrt(2 / math.pi)  # beyond the mean size of the noise
    assert anywhere > 0.03


class Watch(Callback):
    """Records which parts change, and their learning rates."""

    def __init__(self, parts):
        self.parts, self.rows = parts, []

    def before_batch(self, learner):
        self.before = [part.clone() for part in self.weights()]

    def after_step(self, learner):
        moved = [not torch.equal(old, new) for old, new in zip(self.before, self.weights(), strict=True)]
        self.rows.append((*moved, learner.optimizer.param_groups[0]["lr"], learner.optimizer.param_groups[-1]["lr"]))

    def weights(self):
        return [self.parts[0][0].weight.detach(), self.parts[1][2].weight.detach()]


def test_first_the_head_is_trained_then_all_parts_with_lower_rates_for_lower_parts():
    parts, watch = small(), None
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = DataLoader(Dataset(x, (x.mean((1, 2, 3)) > 0).long()), 8)
    learner = Learner(nn.Sequential(*parts), batches, batches, nn.CrossEntropyLoss(), Adam(param_groups(parts), 1e-3))
    watch = Watch(parts)
    fine_tune(learner, parts, epochs=2, base_lr=1e-2, freeze_epochs=1, lr_mult=10, callbacks=[watch])
    frozen, whole = watch.rows[:4], watch.rows[4:]
    assert [row[:2] for row in frozen] == [(False, True)] * 4
    assert [row[:2] for row in whole] == [(True, True)] * 8
    assert all(head == pytest.approx(10 * body) for *_, body, head in watch.rows)
    assert max(head for *_, head in whole) == pytest.approx(5e-3, rel=0.05)
