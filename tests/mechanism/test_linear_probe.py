"""A linear probe, step by step: features once, a convex loss, its minimum, one Linear; then training of all layers."""

from itertools import islice, pairwise

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import cross_entropy

from kit.mechanism.linear_probe import (
    compute_features,
    descend,
    feature_drift,
    linear_probe,
    logistic_gradient,
    logistic_regression,
    safe_rate,
    seeded,
    three_ways,
)
from kit.mechanism.losses import one_hot
from kit.mechanism.plots import draw_distortion
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


def test_the_modes_come_back_after_an_error_too():
    body = small_body().train()
    with pytest.raises(RuntimeError):
        compute_features(body, torch.rand(10, 5, 8, 8))
    assert all(module.training for module in body.modules())


def test_the_gradient_written_out_is_that_of_autograd():
    x, target = problem()
    weight = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (expected,) = torch.autograd.grad(objective(weight, x, target, 0.3), weight)
    assert torch.allclose(logistic_gradient(weight.detach(), x, target, 0.3), expected, atol=1e-12)


def test_at_the_safe_rate_every_step_descends():
    x, target = problem()
    losses = [objective(weight, x, target, 1e-3) for weight, _ in islice(descend(x, target, 1e-3, False), 300)]
    assert all(after < before for before, after in pairwise(losses))


def test_no_curvature_anywhere_exceeds_what_the_safe_rate_assumes():
    x, target = problem()
    for seed in range(20):
        weight = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        curvature = torch.autograd.functional.hessian(lambda w: objective(w, x, target, 0.1), weight)
        assert torch.linalg.eigvalsh(curvature.reshape(18, 18)).max() <= 1 / safe_rate(x, 0.1)


def test_acceleration_needs_a_fraction_of_the_steps():
    x, target = problem()

    def steps(accelerate):
        path = enumerate(descend(x, target, 1e-3, accelerate))
        return next(step for step, (_, gradient) in path if gradient.abs().max() <= 1e-6)

    assert steps(accelerate=True) < steps(accelerate=False) / 4


@pytest.mark.parametrize("l2", [1e-3, 1e-2, 1.0])
def test_the_minimum_is_that_of_scikit_learn(l2):
    x, labels = blobs()
    head = linear_probe(x, labels, 3, l2)
    standardised = StandardScaler().fit_transform(x.double().numpy())
    reference = LogisticRegression(C=1 / (len(x) * l2), tol=1e-8, max_iter=5000).fit(standardised, labels.numpy())
    expected = torch.tensor(reference.predict_proba(standardised)).float()
    assert (head(x).softmax(1) - expected).abs().max() < 1e-4


def test_at_the_minimum_the_mean_probability_of_a_class_is_its_share():
    """Because the bias is not penalised: its gradient is the one minus the other."""
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
        (lambda x, y: logistic_regression(x, y, 3, l2=0), "l2 is 0: it must be above 0; classes that a plane"),
        (lambda x, y: logistic_regression(x, y, 2), "label 2 is out of range: expected 0 to 1"),
        (lambda x, y: logistic_regression(x, y, 3, steps=5), "gradient is still .* after 5 steps; standardise x or"),
        (lambda x, y: draw_distortion({}, y), "no features to draw"),
        (lambda x, y: draw_distortion({"before": x}, y[1:]), r"shapes \(60, 5\) for 59 labels: expected \(n, f\)"),
    ],
)
def test_what_has_no_answer_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(*blobs())


def test_drift_is_the_share_of_their_length_that_features_moved():
    before = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert feature_drift(before, before) == 0
    assert feature_drift(before, 1.1 * before) == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(4))
def test_careless_training_distorts_the_features_and_careful_training_does_not(seed):
    _, ways = three_ways(seed)
    probe, careless, careful = ways["probe"], ways["careless"], ways["careful"]
    assert probe.drift == 0
    assert careful.drift < 0.1 < 0.8 < careless.drift
    assert probe.error < 0.05
    assert careless.error > probe.error + 0.2
    assert careful.error <= probe.error + 0.01


@pytest.mark.parametrize("seed", range(4))
def test_images_like_those_of_training_show_little_of_the_damage(seed):
    careless = three_ways(seed)[1]["careless"]
    assert careless.same < careless.error / 2


def test_a_seed_gives_the_same_outcome_and_leaves_random_state_and_threads_alone():
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    with seeded(1):
        first = torch.rand(3)
        assert torch.get_num_threads() == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 2
    with seeded(1):
        assert torch.equal(torch.rand(3), first)


def test_the_picture_shows_every_network_on_the_axes_of_the_first():
    x, labels = blobs()
    figure = draw_distortion({"before": x, "moved": x + 5, "shrunk": 0.1 * x}, labels)
    assert [axes.get_title() for axes in figure.axes] == ["before", "moved", "shrunk"]
    assert len({axes.get_xlim() for axes in figure.axes}) == len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        assert [len(points.get_offsets()) for points in axes.collections] == [20, 20, 20]
    rings = [[line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes]
    assert rings[0] == rings[1] == rings[2]
    first = figure.axes[0].collections[0].get_offsets().mean(0)
    assert rings[0][0][0] == pytest.approx(first)


def test_the_first_axis_of_the_picture_is_that_of_the_widest_spread():
    x, labels = blobs()
    (axes,) = draw_distortion({"before": x}, labels).axes
    share = torch.linalg.eigvalsh(x.T.cov())[-1] / x.var(0).sum()
    assert axes.get_xlabel().startswith(f"first principal axis before ({share:.0%} ")
