"""Stochastic gradient descent in seven steps: a lesson.

Read this file from top to bottom. It trains a program to distinguish handwritten threes from sevens, and each test
shows one statement. Everything is written out: the model is one line, the gradient is derived by hand, and the
loop is in `train`. The last tests compare it with PyTorch's optimizer: the weights are equal bit for bit.

    1. initialise the parameters           5. step: change the parameters a little against the gradient
    2. predict                             6. repeat
    3. compute the loss                    7. stop
    4. compute the gradient
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
    """x (n, 64): images as rows of 64 pixels from 0 to 1; y (n,): 1 for a three and 0 for a seven."""
    digits = load_digits()
    chosen = (digits.target == 3) | (digits.target == 7)
    x = torch.tensor(digits.data[chosen], dtype=torch.float64) / 16
    y = torch.tensor(digits.target[chosen] == 3, dtype=torch.float64)
    return x, y


# The steps -----------------------------------------------------------------------------------------------------------


def initialise() -> tuple[Tensor, Tensor]:
    """Step 1. A random weight for each pixel and one bias: the 65 parameters that will be learned."""
    generator = torch.Generator().manual_seed(42)
    weights = torch.randn(64, generator=generator, dtype=torch.float64) * 0.1
    bias = torch.zeros(1, dtype=torch.float64)
    return weights, bias


def predict(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Step 2. Weighted sum of the pixels plus bias, then sigmoid: the probability of a three, (n, 64) -> (n,)."""
    return sigmoid(x @ weights + bias)


def loss_of(p: Tensor, y: Tensor) -> Tensor:
    """Step 3. Binary cross entropy: the mean of -log(predicted probability of the true class), a scalar."""
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def gradient(x: Tensor, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Step 4. The derivatives of the loss with respect to weights and bias.

    By the chain rule most terms cancel: dL/d(x @ weights + bias) = (p - y) / n for each image. Each weight gets the sum
    over the images of this error times its pixel; the bias gets the sum of the errors.
    """
    error = (p - y) / len(y)
    return x.T @ error, error.sum().reshape(1)


def step(parameter: Tensor, grad: Tensor, lr: float) -> None:
    """Step 5. Subtract the gradient times the learning rate from the parameter."""
    parameter.add_(grad, alpha=-lr)


def train(x: Tensor, y: Tensor, epochs: int, lr: float = 1.0) -> tuple[Tensor, Tensor, list[float]]:
    """Steps 6 and 7. The training loop: repeat steps 2 to 5, then stop. Returns weights, bias and losses."""
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
    """The fraction of the images whose class has a probability above 0.5."""
    return ((p > 0.5) == (y == 1)).double().mean().item()


# The lesson ----------------------------------------------------------------------------------------------------------


def test_step_1_random_parameters_classify_no_better_than_guessing(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    assert weights.shape == (64,)
    assert bias.shape == (1,)
    assert 0.2 < accuracy(predict(x, weights, bias), y) < 0.8


def test_step_2_predict_gives_each_image_a_probability(threes_and_sevens):
    x, _ = threes_and_sevens
    p = predict(x, *initialise())
    assert p.shape == (len(x),)
    assert ((p > 0) & (p < 1)).all()


def test_step_3_the_loss_is_small_for_a_confident_right_prediction_and_large_for_a_confident_wrong_one():
    truth = torch.tensor([1.0, 0.0])
    right, undecided, wrong = (torch.tensor(p) for p in ([0.99, 0.01], [0.5, 0.5], [0.01, 0.99]))
    assert loss_of(right, truth) < loss_of(undecided, truth) < loss_of(wrong, truth)
    assert loss_of(undecided, truth).item() == pytest.approx(0.693, abs=1e-3)  # log 2


def test_step_4_the_gradient_by_hand_is_equal_to_the_numerical_gradient(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    by_hand, _ = gradient(x, predict(x, weights, bias), y)
    numerical = numerical_gradient(lambda w: loss_of(predict(x, w, bias), y), weights)
    torch.testing.assert_close(by_hand, numerical, rtol=1e-6, atol=1e-9)


def test_step_4_pytorchs_autograd_computes_the_same_gradient(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    weights.requires_grad_()
    loss_of(predict(x, weights, bias), y).backward()
    by_hand, _ = gradient(x, predict(x, weights.detach(), bias), y)
    torch.testing.assert_close(by_hand, weights.grad, rtol=1e-10, atol=1e-12)


def test_step_5_a_small_step_against_the_gradient_decreases_the_loss(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    before = predict(x, weights, bias)
    weights_grad, _ = gradient(x, before, y)
    step(weights, weights_grad, lr=0.1)
    assert loss_of(predict(x, weights, bias), y) < loss_of(before, y)


def test_step_5_the_same_step_along_the_gradient_increases_it(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias = initialise()
    before = predict(x, weights, bias)
    weights_grad, _ = gradient(x, before, y)
    step(weights, weights_grad, lr=-0.1)
    assert loss_of(predict(x, weights, bias), y) > loss_of(before, y)


def test_step_6_repeating_the_steps_trains_the_model(threes_and_sevens):
    x, y = threes_and_sevens
    weights, bias, losses = train(x, y, epochs=100)
    assert losses[0] > 5 * losses[-1]
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert accuracy(predict(x, weights, bias), y) > 0.98


def test_step_7_after_training_the_model_classifies_images_that_it_has_not_seen(threes_and_sevens):
    x, y = threes_and_sevens
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    train_set, test_set = order[:250], order[250:]
    weights, bias, _ = train(x[train_set], y[train_set], epochs=100)
    assert accuracy(predict(x[test_set], weights, bias), y[test_set]) > 0.97


# More about training -------------------------------------------------------------------------------------------------


def test_the_learned_weights_look_like_the_difference_of_the_classes(threes_and_sevens):
    """The weight of a pixel is large where threes are bright and sevens are dark, as in the lower curve of a three."""
    x, y = threes_and_sevens
    weights, _, _ = train(x, y, epochs=100)
    difference = x[y == 1].mean(0) - x[y == 0].mean(0)
    assert torch.corrcoef(torch.stack([weights, difference]))[0, 1] > 0.8


def test_a_learning_rate_that_is_too_large_makes_the_loss_rise(threes_and_sevens):
    x, y = threes_and_sevens
    *_, losses = train(x, y, epochs=20, lr=30.0)
    assert any(later > earlier for earlier, later in pairwise(losses))


def test_mini_batches_give_more_steps_per_epoch_and_a_lower_loss(threes_and_sevens):
    """*Stochastic* gradient descent: a step for each batch of 16 images, in a new random order in every epoch."""
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


def test_without_zero_grad_the_gradients_of_all_steps_add_up(threes_and_sevens):
    """PyTorch *adds* each new gradient to `grad`, so a training loop must call `zero_grad()`."""
    x, y = threes_and_sevens
    weights, bias = initialise()
    weights.requires_grad_()
    loss_of(predict(x, weights, bias), y).backward()
    once = weights.grad.clone()
    loss_of(predict(x, weights, bias), y).backward()
    assert torch.equal(weights.grad, 2 * once)


# The same in PyTorch --------------------------------------------------------------------------------------------------


def test_kit_mechanisms_sgd_is_equal_to_step_5_bit_for_bit(threes_and_sevens):
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


def test_pytorchs_sgd_is_equal_to_step_5_bit_for_bit(threes_and_sevens):
    """Model, loss and gradient by hand; step 5 by `torch.optim.SGD`."""
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


def test_pytorchs_model_loss_autograd_and_optimizer_learn_the_same_weights(threes_and_sevens):
    """Every step by PyTorch. It adds in another order, so only the last bits differ."""
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
