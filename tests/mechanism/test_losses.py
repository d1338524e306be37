"""Losses: each compared with torch's, what they refuse, and why accuracy is not a loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from kit.mechanism.autograd import Variable
from kit.mechanism.gradient import gradient_descent, numerical_gradient, relative_error
from kit.mechanism.losses import (
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
    one_hot,
    zero_gradient_fraction,
)

DICE = torch.Generator().manual_seed(0)
LOGITS = torch.randn(8, 5, generator=DICE, dtype=torch.float64)
LABELS = torch.randint(0, 5, (8,), generator=DICE)


def test_mean_squared_error_is_torchs_for_any_shape():
    for shape in [(3,), (3, 1), (2, 3, 4)]:
        a, b = torch.rand(2, *shape, generator=DICE, dtype=torch.float64)
        torch.testing.assert_close(mean_squared_error(a, b), F.mse_loss(a, b))


def test_cross_entropy_of_class_numbers_is_torchs():
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


def test_index_and_one_hot_labels_give_the_same_loss():
    hot = one_hot(LABELS, 5)
    assert hot.sum(dim=1).tolist() == [1.0] * 8
    assert torch.equal(hot.argmax(dim=1), LABELS)
    assert torch.equal(cross_entropy(LOGITS, LABELS), cross_entropy(LOGITS, hot))


def test_soft_labels_are_torchs_too():
    soft = torch.rand(8, 5, generator=DICE, dtype=torch.float64)
    soft = soft / soft.sum(dim=1, keepdim=True)
    torch.testing.assert_close(cross_entropy(LOGITS, soft), F.cross_entropy(LOGITS, soft))


def test_binary_cross_entropy_is_torchs_and_finite_for_huge_scores():
    target = torch.rand(8, 5, generator=DICE, dtype=torch.float64)
    ours = binary_cross_entropy(LOGITS, target)
    torch.testing.assert_close(ours, F.binary_cross_entropy_with_logits(LOGITS, target))
    huge = torch.tensor([[1000.0, -1000.0]])
    assert binary_cross_entropy(huge, torch.tensor([[0.0, 0.0]])).item() == 500
    with pytest.raises(ValueError, match=r"logits have shape \(8, 5\) and target \(8,\)"):
        binary_cross_entropy(LOGITS, LABELS)


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_samples():
    alone = [cross_entropy(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(8)]
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS), torch.stack(alone).mean())


def test_equal_probabilities_cost_the_logarithm_of_the_number_of_classes():
    assert cross_entropy(torch.zeros(4, 10), torch.tensor([0, 3, 5, 9])).item() == pytest.approx(math.log(10))


def test_a_confident_wrong_prediction_has_a_large_but_finite_loss():
    assert cross_entropy(torch.tensor([[1000.0, 0.0]]), torch.tensor([1])).item() == 1000.0


def test_the_gradient_of_cross_entropy_is_prediction_minus_target():
    measured = numerical_gradient(lambda logits: cross_entropy(logits, LABELS), LOGITS.clone())
    by_hand = (LOGITS.softmax(dim=1) - one_hot(LABELS, 5)) / 8
    assert relative_error(measured, by_hand) < 1e-8


def test_our_own_autograd_runs_through_both_losses():
    logits = Variable(LOGITS.clone())
    cross_entropy(logits, LABELS).backward()
    assert relative_error(logits.grad, (LOGITS.softmax(dim=1) - one_hot(LABELS, 5)) / 8) < 1e-10
    prediction = Variable(LOGITS.clone())
    mean_squared_error(prediction, torch.ones_like(LOGITS)).backward()
    assert relative_error(prediction.grad, 2 * (LOGITS - 1) / 40) < 1e-10


def test_accuracy_counts_the_highest_score_and_takes_both_kinds_of_labels():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    assert accuracy(logits, labels) == accuracy(logits, one_hot(labels, 2)) == 0.75


@pytest.fixture(scope="module")
def digits():
    """100 real digits, 0 to 2, at 4x4 pixels: x (100, 16), labels (100,), and 40 random weights (3, 16)."""
    pixels, labels = load_digits(n_class=3, return_X_y=True)
    x = torch.tensor(pixels[:100]).reshape(100, 4, 2, 4, 2).mean(dim=(2, 4)).reshape(100, 16) / 16
    weights = torch.randn(40, 3, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return x, torch.tensor(labels[:100]), weights


def test_the_gradient_of_accuracy_is_zero_almost_everywhere_and_that_of_the_loss_nowhere(digits):
    x, labels, weights = digits
    assert zero_gradient_fraction(lambda w: accuracy(x @ w.T, labels), weights) >= 0.9
    assert zero_gradient_fraction(lambda w: cross_entropy(x @ w.T, labels), weights) == 0


def test_gradient_descent_cannot_optimise_accuracy_but_can_optimise_the_loss(digits):
    x, labels, weights = digits
    start = weights[0]
    before = accuracy(x @ start.T, labels)
    stuck = gradient_descent(lambda w: -accuracy(x @ w.T, labels), start, 1.0, 10)[-1]
    learned = gradient_descent(lambda w: cross_entropy(x @ w.T, labels), start, 1.0, 40)[-1]
    assert torch.equal(stuck, start)
    assert before < 0.6 < 0.9 < accuracy(x @ learned.T, labels)


def test_a_small_improvement_changes_the_loss_but_not_the_accuracy():
    labels = torch.tensor([1])
    worse, better = torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 1.9]])
    assert accuracy(worse, labels) == accuracy(better, labels) == 0
    assert cross_entropy(better, labels) < cross_entropy(worse, labels)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mean_squared_error(torch.zeros(3, 1), torch.zeros(3)), r"shape \(3, 1\) and target \(3,\).*reshape"),
        (
            lambda: cross_entropy(torch.zeros(3), torch.tensor([0])),
            r"have shape \(3,\): expected \(n, classes\)",
        ),
        (
            lambda: cross_entropy(torch.zeros(2, 3), torch.tensor([0])),
            r"indices \(2,\) or one-hot labels \(2, 3\)",
        ),
        (lambda: cross_entropy(torch.zeros(2, 3), torch.tensor([0, 3])), "label 3 is out of range: expected 0 to 2"),
        (lambda: cross_entropy(torch.zeros(2, 3), torch.tensor([-1, 0])), "label -1 is out of range"),
        (
            lambda: cross_entropy(torch.zeros(2, 3), torch.tensor([0.0, 1.0])),
            r"are torch.float32.*use .long\(\)",
        ),
        (lambda: one_hot(torch.zeros(2, 2).long(), 3), r"labels have shape \(2, 2\): expected \(n,\)"),
        (lambda: accuracy(torch.zeros(2, 3), torch.tensor([0])), "2 predictions and 1 labels"),
    ],
)
def test_wrong_shapes_and_values_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
