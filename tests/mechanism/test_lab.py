"""The lab: each mistake is found at the value and the step where it first acts."""

import subprocess
import sys

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from kit.mechanism.batches import Dataset
from kit.mechanism.lab import MISTAKES, first_wrong, train
from kit.mechanism.trace import first_difference

FOUND = {
    "zero_grad": (1, "gradient of 0.1.weight"),
    "freeze": (0, "gradient of 0.0.weight"),
    "bias_correction": (0, "parameter 0.1.weight"),
    "train_mode": (5, "loss"),
    "softmax": (0, "loss"),
    "decoupled": (0, "mean of 1.2.weight"),
    "shuffle": (0, "batch x"),
}


@pytest.fixture(scope="module")
def data():
    digits = load_digits()
    return Dataset(
        torch.tensor(digits.images[:300], dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target[:300])
    )


def test_the_correct_training_repeats_in_every_bit_and_leaves_the_generator_as_it_was(data):
    first, accuracy = train(data)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert first_difference(first, train(data)[0]) is None
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(first) == 15 and accuracy > 0.5
    parameters = {name for name in first[0] if name.startswith("parameter ")}  # no bias before the batch norm
    assert parameters == {
        f"parameter {name}" for name in ("0.0.weight", "0.1.weight", "0.1.bias", "1.2.weight", "1.2.bias")
    }


def test_the_accuracy_is_that_of_the_network_after_the_last_step(data):
    steps, accuracy = train(data)
    body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    network = nn.Sequential(body, nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))).eval()
    values = [(name.split(" ", 1), value) for name, value in steps[-1].items()]
    network.load_state_dict({name[0]: value for (kind, *name), value in values if kind in ("parameter", "statistic")})
    x, y = data[160:]
    assert accuracy == pytest.approx((network(x).argmax(1) == y).double().mean().item())


def test_every_mistake_has_a_place():
    assert set(FOUND) == set(MISTAKES)


@pytest.mark.parametrize("mistake", FOUND)
def test_the_first_wrong_value_is_named(mistake, data):
    difference, _, _ = first_wrong(data, mistake)
    assert (difference.step, difference.name) == FOUND[mistake]


def test_a_missing_zero_grad_costs_accuracy_and_a_missing_freeze_hardly_any(data):
    _, accuracy, without_zero_grad = first_wrong(data, "zero_grad")
    assert without_zero_grad < accuracy - 0.1
    assert abs(first_wrong(data, "freeze")[2] - accuracy) < 0.05


def test_an_unknown_mistake_is_refused(data):
    with pytest.raises(ValueError, match='no mistake "zero"; expected one of zero_grad, freeze, bias_correction'):
        first_wrong(data, "zero")


@pytest.mark.slow
def test_one_mistake_can_be_named_on_the_command_line():
    command = [sys.executable, "-m", "kit.mechanism.lab"]
    done = subprocess.run([*command, "softmax"], capture_output=True, text=True)
    assert done.stdout.startswith("softmax: softmax is applied before a loss that contains it; accuracy ")
    assert "step 0: loss is " in done.stdout and len(done.stdout.splitlines()) == 2
    refused = subprocess.run([*command, "other"], capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.startswith('no mistake "other"; expected one of ')
