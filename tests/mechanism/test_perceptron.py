"""The perceptron: gates with weights set by hand, gates learned, and XOR, which needs two layers."""

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.perceptron import INPUTS, TRUTH, and_gate, nand_gate, or_gate, perceptron, train_perceptron, xor_gate


@pytest.mark.parametrize(("gate", "name"), [(and_gate, "AND"), (nand_gate, "NAND"), (or_gate, "OR"), (xor_gate, "XOR")])
def test_weights_set_by_hand_make_the_gate(gate, name):
    assert gate(INPUTS).tolist() == TRUTH[name].tolist()


@pytest.mark.parametrize(("gate", "threshold", "above"), [(and_gate, 1.5, 1), (nand_gate, 1.5, 0), (or_gate, 0.5, 1)])
def test_the_output_changes_where_the_sum_of_the_inputs_passes_the_threshold(gate, threshold, above):
    for first in (0.0, 0.3, 1.0):
        beside = torch.tensor([[first, threshold - first + distance] for distance in (-0.1, 0.1)])
        assert gate(beside).tolist() == [1 - above, above]


@pytest.mark.parametrize("name", ["AND", "NAND", "OR"])
def test_the_perceptron_rule_learns_the_linearly_separable_gates(name):
    trained = train_perceptron(INPUTS, TRUTH[name])
    assert trained.converged and trained.mistakes[-1] == 0
    assert perceptron(INPUTS, trained.weight, trained.bias).tolist() == TRUTH[name].tolist()


def test_the_rule_never_converges_on_xor():
    trained = train_perceptron(INPUTS, TRUTH["XOR"], epochs=1000)
    assert not trained.converged
    assert len(trained.mistakes) == 1000 and min(trained.mistakes) > 0
    for settings, epochs in (({}, 100), ({"epochs": 1}, 1)):
        assert len(train_perceptron(INPUTS, TRUTH["XOR"], **settings).mistakes) == epochs


def test_none_of_100_000_random_perceptrons_is_xor():
    dice = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 100_000, generator=dice, dtype=torch.float64)
    biases = torch.randn(100_000, generator=dice, dtype=torch.float64)
    answers = (INPUTS.double() @ weights + biases > 0).float()
    assert not (answers == TRUTH["XOR"][:, None]).all(dim=0).any()
    for name in ("AND", "NAND", "OR"):
        assert (answers == TRUTH[name][:, None]).all(dim=0).any()


def test_the_two_sums_in_the_proof_are_always_equal():
    """XOR needs one sum above 0 and the other not, but both are w1 + w2 + 2 bias."""
    weights = torch.randint(-9, 10, (2, 1000), generator=torch.Generator().manual_seed(1)).float()
    sums = INPUTS @ weights + 0.5
    assert torch.equal(sums[1] + sums[2], sums[0] + sums[3])


def test_the_hidden_layer_makes_xor_linearly_separable():
    hidden = torch.stack([nand_gate(INPUTS), or_gate(INPUTS)], dim=1)
    assert hidden.tolist() == [[1, 0], [1, 1], [1, 1], [0, 1]]
    assert train_perceptron(hidden, TRUTH["XOR"]).converged


def test_the_learning_rate_scales_the_weights_and_changes_no_answer():
    one, eighth = train_perceptron(INPUTS, TRUTH["AND"], lr=1.0), train_perceptron(INPUTS, TRUTH["AND"], lr=0.125)
    assert one.mistakes == eighth.mistakes
    assert torch.equal(one.weight * 0.125, eighth.weight)


def test_the_digits_zero_and_one_are_linearly_separable():
    pixels, labels = load_digits(n_class=2, return_X_y=True)
    x, target = torch.tensor(pixels) / 16, torch.tensor(labels, dtype=torch.float64)
    trained = train_perceptron(x[:200], target[:200])
    assert trained.converged
    assert (perceptron(x[200:], trained.weight, trained.bias) == target[200:]).double().mean() > 0.95


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: perceptron(INPUTS, torch.zeros(3), 0.0), r"x has shape \(4, 2\) and weight \(3,\)"),
        (lambda: train_perceptron(INPUTS, torch.zeros(3)), r"x has shape \(4, 2\) and target \(3,\)"),
        (lambda: train_perceptron(torch.zeros(0, 2), torch.zeros(0)), r"\(0, 2\) and target \(0,\).* n > 0"),
        (
            lambda: train_perceptron(INPUTS, torch.tensor([0, 1, 2, 0.0])),
            r"targets are \[0.0, 1.0, 2.0\]: expected 0 and 1",
        ),
        (lambda: train_perceptron(INPUTS, TRUTH["OR"], epochs=0), "epochs is 0 and lr is 1.0: expected at least 1"),
        (
            lambda: train_perceptron(INPUTS, TRUTH["OR"], lr=-1.0),
            "lr is -1.0: expected at least 1, and a positive number",
        ),
    ],
)
def test_wrong_shapes_and_values_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
