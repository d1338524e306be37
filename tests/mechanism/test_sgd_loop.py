"""How a machine learns, in seven steps.

This file is meant to be read from top to bottom. It teaches a program to tell a real, handwritten 3 from a 7, and it
asserts every claim on the way. Nothing is hidden in a library: the model is one line, the gradient is worked out on
paper, and the loop is written out. At the end the same loop stands beside PyTorch's, and every bit agrees.

    1. initialise the parameters           5. step: move the parameters a little against it
    2. predict                             6. repeat
    3. calculate the loss                  7. stop
    4. calculate the gradient
"""

from itertools import pairwise

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from kit.mechanism.activations import sigmoid
from kit.mechanism.gradient import numerical_gradient
from kit.mechanism.optimizers import SGD


@pytest.fixture
def threes_and_sevens() -> tuple[Tensor, Tensor]:
    """Images as rows of 64 brightnesses from 0 to 1, x (n, 64); y (n,) is 1 for a three and 0 for a seven."""
    digits = load_digits()
    chosen = (digits.target == 3) | (digits.target == 7)
    x = torch.tensor(digits.data[chosen], dtype=torch.float64) / 16
    y = torch.tensor(digits.target[chosen] == 3, dtype=torch.float64)
    return x, y


# The pieces ----------------------------------------------------------------------------------------------------------


def initialise() -> tuple[Tensor, Tensor]:
    """Step 1. A weight for each pixel, drawn at random, and one bias: 65 numbers are all that will be learned."""
    generator = torch.Generator().manual_seed(42)
    weights = torch.randn(64, generator=generator, dtype=torch.float64) * 0.1
    bias = torch.zeros(1, dtype=torch.float64)
    return weights, bias


def predict(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Step 2. Each pixel times its weight, summed, squeezed between 0 and 1: (n, 64) -> (n,), how much like a three."""
    return sigmoid(x @ weights + bias)


def loss_of(p: Tensor, y: Tensor) -> Tensor:
    """Step 3. One number for how wrong that was: -log of the probability given to the truth, on average."""
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def gradient(x: Tensor, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Step 4. How the loss changes with each parameter. On paper nearly all of it cancels: what is left is the error
    p - y, passed back to each weight in proportion to the pixel that it multiplied."""
    error = (p - y) / len(y)
    return x.T @ error, error.sum().reshape(1)


def step(parameter: Tensor, grad: Tensor, lr: float) -> None:
    """Step 5. A little against the gradient: downhill."""
    parameter.add_(grad, alpha=-lr)


def train(x: Tensor, y: Tensor, epochs: int, lr: float = 1.0) -> tuple[Tensor, Tensor, list[float]]:
    """Steps 6 and 7. Again and again, and then stop. This is the training loop."""
    weights, bias = initialise()
    losses = []
    for _ in range(epochs):
        p = predict(x, weights, bias)
        losses.append(loss_of(p, y).item())
        weights_grad, bias_grad = gradient(x, p, y)
        step(weights, weights_grad, lr)
        step(bias, bias_grad, lr)
    return weights, bias, losses


def accuracy(p: Tensor, y: Tensor) -> float:
    return ((p > 0.5) == (y == 1)).double().mean().item()


# The lesson ----------------------------------------------------------------------------------------------------------


def test_step_1_initialise_knows_nothing(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    assert weights.shape == (64,)
    assert bias.shape == (1,)
    assert 0.2 < accuracy(predict(x, weights, bias), y) < 0.8  # no better than a guess, and no worse


def test_step_2_predict_gives_each_image_a_probability(threes_and_sevens):
    x, _ = threes_and_sevens
    p = predict(x, *initialise())
    assert p.shape == (len(x),)
    assert ((p > 0) & (p < 1)).all()


def test_step_3_the_loss_is_small_for_a_sure_right_answer_and_large_for_a_sure_wrong_one():
    truth = torch.tensor([1.0, 0.0])
    right, undecided, wrong = (torch.tensor(p) for p in ([0.99, 0.01], [0.5, 0.5], [0.01, 0.99]))
    assert loss_of(right, truth) < loss_of(undecided, truth) < loss_of(wrong, truth)
    assert loss_of(undecided, truth).item() == pytest.approx(0.693, abs=1e-3)  # log 2: one yes-or-no question


def test_step_4_the_gradient_worked_out_on_paper_is_the_one_that_is_measured(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    by_paper, _ = gradient(x, predict(x, weights, bias), y)
    by_measuring = numerical_gradient(lambda w: loss_of(predict(x, w, bias), y), weights)
    torch.testing.assert_close(by_paper, by_measuring, rtol=1e-6, atol=1e-9)


def test_step_4_pytorch_finds_the_same_gradient(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    weights.requires_grad_()
    loss_of(predict(x, weights, bias), y).backward()
    by_paper, _ = gradient(x, predict(x, weights.detach(), bias), y)
    torch.testing.assert_close(by_paper, weights.grad, rtol=1e-10, atol=1e-12)


def test_step_5_one_small_step_against_the_gradient_makes_the_loss_smaller(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    before = predict(x, weights, bias)
    weights_grad, _ = gradient(x, before, y)
    step(weights, weights_grad, lr=0.1)
    assert loss_of(predict(x, weights, bias), y) < loss_of(before, y)


def test_step_5_the_same_step_uphill_makes_it_larger(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    before = predict(x, weights, bias)
    weights_grad, _ = gradient(x, before, y)
    step(weights, weights_grad, lr=-0.1)
    assert loss_of(predict(x, weights, bias), y) > loss_of(before, y)


def test_step_6_repeating_it_learns(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias, losses = train(x, y, epochs=100)
    assert losses[0] > 5 * losses[-1]
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert accuracy(predict(x, weights, bias), y) > 0.98


def test_step_7_stop_and_ask_about_images_it_has_never_seen(threes_and_sevens):
    x, y = threes_and_sevens
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    seen, unseen = order[:250], order[250:]
    weights, bias, _ = train(x[seen], y[seen], epochs=100)
    assert accuracy(predict(x[unseen], weights, bias), y[unseen]) > 0.97


# What follows from it ------------------------------------------------------------------------------------------------


def test_the_weights_have_become_a_picture_of_the_difference(threes_and_sevens):
    """The learned weights are bright where a three has ink and a seven has none: half of a three's lower bow."""
    x, y = threes_and_sevens
    weights, _, _ = train(x, y, epochs=100)
    difference = x[y == 1].mean(0) - x[y == 0].mean(0)
    assert torch.corrcoef(torch.stack([weights, difference]))[0, 1] > 0.8


def test_too_large_a_learning_rate_jumps_over_the_valley(threes_and_sevens):
    x, y = threes_and_sevens
    *_, losses = train(x, y, epochs=20, lr=30.0)
    assert any(later > earlier for earlier, later in pairwise(losses))


def test_mini_batches_make_more_steps_of_the_same_images(threes_and_sevens):
    """*Stochastic* gradient descent: a step for every few images, in a new order each epoch. It gets further."""
    x, y = threes_and_sevens
    generator = torch.Generator().manual_seed(0)
    weights, bias = initialise()
    for _ in range(10):
        for batch in torch.randperm(len(x), generator=generator).split(16):
            weights_grad, bias_grad = gradient(x[batch], predict(x[batch], weights, bias), y[batch])
            step(weights, weights_grad, lr=1.0)
            step(bias, bias_grad, lr=1.0)
    *_, losses = train(x, y, epochs=10)
    assert loss_of(predict(x, weights, bias), y) < losses[-1] / 2


def test_forgetting_to_set_the_gradient_to_zero_is_a_mistake_that_can_be_seen(threes_and_sevens):
    """PyTorch *adds* each new gradient to `grad`. Left alone, every step repeats all steps before it."""
    x, y = threes_and_sevens
    weights, bias = initialise()
    weights.requires_grad_()
    loss_of(predict(x, weights, bias), y).backward()
    once = weights.grad.clone()
    loss_of(predict(x, weights, bias), y).backward()
    assert torch.equal(weights.grad, 2 * once)


# And now PyTorch's ---------------------------------------------------------------------------------------------------


def test_the_optimiser_of_the_next_rung_is_step_5_in_every_bit(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    optimizer = SGD([weights, bias], lr=1.0)
    for _ in range(100):
        weights.grad, bias.grad = gradient(x, predict(x, weights, bias), y)
        optimizer.step()
        optimizer.zero_grad()
    by_hand, bias_by_hand, _ = train(x, y, epochs=100)
    assert torch.equal(weights, by_hand)
    assert torch.equal(bias, bias_by_hand)


def test_pytorchs_own_sgd_takes_the_same_steps_in_every_bit(threes_and_sevens):
    """The model, the loss and the gradient stay ours; the step is now `torch.optim.SGD`."""
    x, y = threes_and_sevens
    weights, bias = (nn.Parameter(p) for p in initialise())
    optimizer = torch.optim.SGD([weights, bias], lr=1.0)
    for _ in range(100):
        with torch.no_grad():
            weights.grad, bias.grad = gradient(x, predict(x, weights, bias), y)
        optimizer.step()
        optimizer.zero_grad()
    by_hand, bias_by_hand, _ = train(x, y, epochs=100)
    assert torch.equal(weights.detach(), by_hand)
    assert torch.equal(bias.detach(), bias_by_hand)


def test_pytorchs_model_loss_gradient_and_step_learn_the_same(threes_and_sevens):
    """Everything is PyTorch's now. It sums in another order, so the last bits differ, and nothing else."""
    x, y = threes_and_sevens
    model = nn.Linear(64, 1).double()
    with torch.no_grad():
        for parameter, start in zip(model.parameters(), initialise(), strict=True):
            parameter.copy_(start.reshape(parameter.shape))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(100):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    by_hand, _, losses = train(x, y, epochs=100)
    torch.testing.assert_close(model.weight.detach()[0], by_hand, rtol=1e-9, atol=1e-12)
    assert loss.item() == pytest.approx(losses[-1], rel=1e-9)
