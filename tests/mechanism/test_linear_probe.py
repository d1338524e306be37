"""A linear probe: features, convex loss, minimum, Linear layer; then fine-tuning of all layers."""

from functools import cache
from itertools import islice, pairwise

import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from kit.mechanism.activations import identity, sigmoid, softmax
from kit.mechanism.linear_probe import (
    compare_fine_tuning,
    compute_features,
    descend,
    feature_drift,
    linear_probe,
    logistic_gradient,
    logistic_regression,
    step_size,
)
from kit.mechanism.losses import one_hot
from kit.mechanism.tensors import append_ones


@pytest.fixture(autouse=True)
def one_thread():
    """Beside other processes, two threads wait for each other at every small operation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def blobs(n=60, features=5, classes=3):
    """Classes that overlap, with features of different means and spreads."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, features, generator=generator)
    x = centres[labels] + torch.randn(n, features, generator=generator)
    return x * torch.tensor([1.0, 10, 0.1, 3, 0.5]) + torch.tensor([0.0, 50, -1, 2, 4]), labels


def problem():
    """Standardised features with a constant 1, and one-hot labels, in float64."""
    x, labels = blobs()
    return append_ones(((x - x.mean(0)) / x.std(0)).double()), one_hot(labels, 3).double()


def objective(weight, x, target, l2):
    """Cross entropy + l2 / 2 * the sum of squared weights, as PyTorch has it."""
    return cross_entropy(x @ weight.T, target) + l2 / 2 * (weight[:, :-1] ** 2).sum()


def small_body():
    """A convolution, a batch norm and dropout: each behaves differently in training."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Dropout(0.5)]
    return nn.Sequential(*layers)


def test_features_computed_once_are_those_of_the_network():
    body, images = small_body(), torch.rand(10, 3, 8, 8)
    features = compute_features(body, images, batch_size=4)
    assert (features.shape, features.dtype, features.requires_grad) == ((10, 16), torch.float32, False)
    network = nn.Sequential(body, nn.Flatten(), nn.Linear(16, 2)).eval()
    assert torch.allclose(network[2](features), network(images), atol=1e-6)


def test_computing_features_leaves_the_body_unchanged():
    body = small_body().train()
    body[1].eval()
    before = {name: value.clone() for name, value in body.state_dict().items()}
    compute_features(body, torch.rand(10, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    assert [module.training for module in body] == [True, False, True, True, True]


def test_the_modes_are_restored_after_an_error():
    body = small_body().train()
    with pytest.raises(RuntimeError):
        compute_features(body, torch.rand(10, 5, 8, 8))
    assert all(module.training for module in body.modules())


def test_the_gradient_written_out_is_that_of_autograd():
    x, target = problem()
    weight = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (expected,) = torch.autograd.grad(objective(weight, x, target, 0.3), weight)
    assert torch.allclose(logistic_gradient(weight.detach(), x, target, 0.3), expected, atol=1e-12)


def test_with_the_step_size_every_step_decreases_the_loss():
    x, target = problem()
    losses = [objective(weight, x, target, 1e-3) for weight, _ in islice(descend(x, target, 1e-3, False), 300)]
    assert all(after < before for before, after in pairwise(losses))


def test_the_curvature_is_never_above_the_bound_of_the_step_size():
    x, target = problem()
    for seed in range(20):
        weight = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        curvature = torch.autograd.functional.hessian(lambda w: objective(w, x, target, 0.1), weight)
        assert torch.linalg.eigvalsh(curvature.reshape(18, 18)).max() <= 1 / step_size(x, 0.1)


@pytest.mark.parametrize(("activation", "classes"), [(softmax, 2), (sigmoid, 3), (identity, 3)])
def test_the_bound_is_reached_so_the_step_size_could_not_be_larger(activation, classes):
    """By two classes of equal probability, by probabilities of one half, and by the squared error everywhere."""
    x, weight = problem()[0], torch.zeros(classes, 6, dtype=torch.float64)
    gradient = lambda w: logistic_gradient(w, x, torch.zeros(60, classes).double(), 0.0, activation)  # noqa: E731
    curvature = torch.autograd.functional.jacobian(gradient, weight).reshape(6 * classes, 6 * classes)
    assert step_size(x, 0.0, activation) == pytest.approx(1 / torch.linalg.eigvalsh(curvature).max().item())


def test_the_momentum_grows_step_by_step_and_restarts_from_0_after_a_step_uphill():
    x, target = problem()
    lr, ends, uphill = step_size(x, 1e-3), [torch.zeros(3, 6)], []
    path = list(islice(descend(x, target, 1e-3), 101))
    momenta = []
    for (weight, gradient), (following, _) in pairwise(path):
        ends.append(weight - lr * gradient)
        moved = ends[-1] - ends[-2]
        uphill.append(bool((gradient * moved).sum() > 0))
        momenta.append(((following - ends[-1]).norm() / moved.norm()).item())
    expected, age = [], 0
    for up in uphill:
        age = 0 if up else age + 1
        expected.append(age / (age + 3))
    assert any(uphill) and momenta == pytest.approx(expected, abs=1e-9)
    assert momenta[:3] == pytest.approx([1 / 4, 2 / 5, 3 / 6])


def test_acceleration_needs_a_fraction_of_the_steps():
    x, target = problem()

    def steps(accelerate):
        path = enumerate(descend(x, target, 1e-3, accelerate))
        return next(step for step, (_, gradient) in path if gradient.abs().max() <= 1e-6)

    assert steps(accelerate=True) < steps(accelerate=False) / 4


@pytest.mark.parametrize(("settings", "l2"), [({"l2": 1e-3}, 1e-3), ({}, 1e-2), ({"l2": 1.0}, 1.0)])
def test_the_minimum_is_that_of_scikit_learn(settings, l2):
    x, labels = blobs()
    head = linear_probe(x, labels, 3, **settings)
    standardised = StandardScaler().fit_transform(x.double().numpy())
    reference = LogisticRegression(C=1 / (len(x) * l2), tol=1e-8, max_iter=5000).fit(standardised, labels.numpy())
    expected = torch.tensor(reference.predict_proba(standardised)).float()
    assert (head(x).softmax(1) - expected).abs().max() < 1e-4
    weight, _ = logistic_regression(torch.from_numpy(standardised), labels, 3, **settings)
    assert (weight - torch.from_numpy(reference.coef_)).abs().max() < 1e-3


def test_at_the_minimum_the_mean_probability_of_a_class_is_its_share():
    """Because the bias is not penalised, and its gradient is the difference of the two."""
    x, labels = blobs()
    kept = (labels != 2) | (torch.arange(60) < 20)
    probabilities = linear_probe(x[kept], labels[kept], 3, l2=10.0)(x[kept]).softmax(1)
    assert torch.allclose(probabilities.mean(0), one_hot(labels[kept], 3).mean(0), atol=1e-4)


def test_a_constant_feature_gets_weight_0():
    x, labels = blobs()
    head = linear_probe(torch.cat([x, torch.full((60, 1), 7.0)], 1), labels, 3)
    assert head.weight[:, 5].abs().max() == 0
    assert head.weight.isfinite().all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, y: logistic_regression(x, y, 3, l2=0), "l2 is 0: it must be above 0; without it"),
        (lambda x, y: logistic_regression(x, y, 2), "label 2 is out of range: expected 0 to 1"),
        (lambda x, y: logistic_regression(x, y, 3, steps=5), "gradient is still .* after 5 steps; standardise x or"),
    ],
)
def test_invalid_arguments_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(*blobs())


def test_drift_is_relative_to_the_length_of_the_features():
    before = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert feature_drift(before, before) == 0
    assert feature_drift(before, 1.1 * before) == pytest.approx(0.1)


compared = cache(compare_fine_tuning)


@pytest.mark.parametrize("seed", range(4))
def test_careless_fine_tuning_distorts_the_features_and_careful_fine_tuning_does_not(seed):
    _, results = compared(seed)
    probe, careless, careful = results.values()
    assert probe.drift == 0
    assert 0 < careful.drift < 0.1 < 0.8 < careless.drift
    assert probe.error < 0.05
    assert careless.error > probe.error + 0.2
    assert careful.error <= probe.error + 0.01


def test_a_comparison_repeats_by_its_seed_and_leaves_the_generator_as_it_was():
    labels, results = compared(1)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    assert all(torch.equal(results[name].features, one.features) for name, one in compare_fine_tuning(1)[1].items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert labels.bincount().tolist() == [100] * 5
    assert not torch.equal(compared(2)[1]["linear probe"].features, results["linear probe"].features)


@pytest.mark.parametrize("seed", range(4))
def test_images_with_the_training_backgrounds_hide_the_damage(seed):
    careless = compared(seed)[1]["careless fine-tuning"]
    assert careless.same_background_error < careless.error / 2


@pytest.mark.parametrize("activation", [sigmoid, identity])
def test_the_gradient_of_several_classes_and_of_numbers_is_autograds(activation):
    x, target = problem()
    weight = torch.randn(3, x.shape[1], dtype=torch.float64, requires_grad=True)
    logits = x @ weight.T
    loss = 3 * binary_cross_entropy_with_logits(logits, target)
    if activation is identity:
        loss = (logits - target).square().sum() / 2 / len(x)
    (loss + 0.01 / 2 * weight[:, :-1].square().sum()).backward()
    ours = logistic_gradient(weight.detach(), x, target, 0.01, activation)
    torch.testing.assert_close(ours, weight.grad)


def test_descent_on_numbers_ends_at_scikit_learns_ridge_regression_and_never_goes_up_without_momentum():
    x, target = problem()
    path = descend(x, target, 0.01, activation=identity)
    weight = next(weight for weight, gradient in path if gradient.abs().max() < 1e-9)
    ridge = Ridge(alpha=0.01 * len(x), tol=1e-12).fit(x[:, :-1].numpy(), target.numpy())
    torch.testing.assert_close(weight[:, :-1], torch.from_numpy(ridge.coef_), rtol=1e-6, atol=1e-6)
    for activation, loss in ((sigmoid, lambda z: 3 * binary_cross_entropy_with_logits(z, target)),):
        walk = islice(descend(x, target, 0.01, accelerate=False, activation=activation), 30)
        values = [loss(x @ w.T) + 0.01 / 2 * w[:, :-1].square().sum() for w, _ in walk]
        assert all(later < earlier for earlier, later in pairwise(values))
