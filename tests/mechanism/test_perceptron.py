"""The perceptron: gates set by hand, gates learned, and XOR, which one layer never learns and two layers are."""

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.perceptron import INPUTS, TRUTH, and_gate, learn, nand_gate, or_gate, perceptron, xor_gate


@pytest.mark.parametrize(("gate", "name"), [(and_gate, "AND"), (nand_gate, "NAND"), (or_gate, "OR"), (xor_gate, "XOR")])
def test_weights_set_by_hand_make_the_gate(gate, name):
    assert gate(INPUTS).tolist() == TRUTH[name].tolist()


@pytest.mark.parametrize("name", ["AND", "NAND", "OR"])
def test_the_perceptron_rule_learns_the_gates_that_a_line_can_part(name):
    found = learn(INPUTS, TRUTH[name])
    assert found.settled and found.mistakes[-1] == 0
    assert perceptron(INPUTS, found.weight, found.bias).tolist() == TRUTH[name].tolist()


def test_the_rule_never_settles_on_xor():
    found = learn(INPUTS, TRUTH["XOR"], epochs=1000)
    assert not found.settled
    assert len(found.mistakes) == 1000 and min(found.mistakes) > 0


def test_on_xor_the_rule_comes_back_to_weights_it_had_so_it_will_circle_for_ever():
    assert learn(INPUTS, TRUTH["XOR"], epochs=20).circles
    assert not learn(INPUTS, TRUTH["AND"]).circles


def test_no_perceptron_among_many_is_xor():
    dice = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 100_000, generator=dice, dtype=torch.float64)
    biases = torch.randn(100_000, generator=dice, dtype=torch.float64)
    answers = (INPUTS.double() @ weights + biases > 0).float()
    assert not (answers == TRUTH["XOR"][:, None]).all(dim=0).any()
    for name in ("AND", "NAND", "OR"):
        assert (answers == TRUTH[name][:, None]).all(dim=0).any()


def test_the_proof_the_middle_two_sums_and_the_outer_two_always_add_up_to_the_same():
    """XOR wants the middle pair above 0 and the outer pair not: but their sums are one number, w1 + w2 + 2 bias."""
    weights = torch.randint(-9, 10, (2, 1000), generator=torch.Generator().manual_seed(1)).float()
    sums = INPUTS @ weights + 0.5
    assert torch.equal(sums[1] + sums[2], sums[0] + sums[3])


def test_two_layers_are_xor_because_the_hidden_layer_moves_the_corners():
    hidden = torch.stack([nand_gate(INPUTS), or_gate(INPUTS)], dim=1)
    assert hidden.tolist() == [[1, 0], [1, 1], [1, 1], [0, 1]]
    assert learn(hidden, TRUTH["XOR"]).settled


def test_the_learning_rate_scales_the_weights_and_changes_no_answer():
    one, tenth = learn(INPUTS, TRUTH["AND"], lr=1.0), learn(INPUTS, TRUTH["AND"], lr=0.125)
    assert one.mistakes == tenth.mistakes
    assert torch.equal(one.history * 0.125, tenth.history)


def test_real_digits_zero_and_one_are_parted_without_a_mistake():
    pixels, labels = load_digits(n_class=2, return_X_y=True)
    x, target = torch.tensor(pixels) / 16, torch.tensor(labels, dtype=torch.float64)
    found = learn(x[:200], target[:200])
    assert found.settled
    assert (perceptron(x[200:], found.weight, found.bias) == target[200:]).double().mean() > 0.95


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: perceptron(INPUTS, torch.zeros(3), 0.0), r"x has shape \(4, 2\) and weight \(3,\)"),
        (lambda: learn(INPUTS, torch.zeros(3)), r"x has shape \(4, 2\) and target \(3,\)"),
        (lambda: learn(torch.zeros(0, 2), torch.zeros(0)), r"\(0, 2\) and target \(0,\).* n > 0"),
        (lambda: learn(INPUTS, torch.tensor([0, 1, 2, 0.0])), r"targets are \[0.0, 1.0, 2.0\]: expected 0 and 1"),
        (lambda: learn(INPUTS, TRUTH["OR"], epochs=0), "epochs is 0 and lr is 1.0: expected at least 1"),
        (lambda: learn(INPUTS, TRUTH["OR"], lr=-1.0), "lr is -1.0: expected at least 1, and a positive number"),
    ],
)
def test_what_does_not_fit_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
