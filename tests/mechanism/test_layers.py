"""Layers: the forward pass of each, and what it refuses. Gradients: test_agreement.py."""

import pytest
import torch
from torch import nn

from kit.mechanism.convolution import Conv2d, ConvTranspose2d
from kit.mechanism.layers import (
    BatchNorm,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    Sigmoid,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
    Tanh,
    main,
)
from kit.mechanism.networks import mlp


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_linear_is_w_x_plus_b_with_a_row_of_weights_for_each_output():
    layer = Linear(2, 3)
    layer.weight, layer.bias = torch.tensor([[1.0, 2], [3, 4], [5, 6]]), torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(layer(torch.tensor([[1.0, 10]])), torch.tensor([[21.1, 43.2, 65.3]]))


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [(Linear(400, 300), 400), (Conv2d(16, 100, 5), 400), (ConvTranspose2d(100, 16, 5), 400)],
    ids=["Linear", "Conv2d", "ConvTranspose2d"],
)
def test_a_new_layer_has_he_weights_and_a_bias_of_zero(layer, fan_in):
    assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    assert not layer.bias.any()


def test_linear_says_which_shape_it_expects():
    with pytest.raises(ValueError, match=r"Linear expects \(n, 4\), got \(2, 5\)"):
        Linear(4, 3)(torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"got \(2, 1, 2, 2\); flatten or resize"):
        Linear(4, 3)(torch.ones(2, 1, 2, 2))


def test_relu_passes_the_gradient_only_where_x_was_above_zero():
    layer = ReLU()
    assert layer(torch.tensor([-2.0, 0, 3])).tolist() == [0, 0, 3]
    assert layer.backward(torch.tensor([5.0, 5, 5])).tolist() == [0, 0, 5]


def test_sigmoid_and_tanh_saturate_without_overflow_and_learn_nothing_there():
    x = torch.tensor([-1000.0, 0, 1000])
    for layer, low, slope in ((Sigmoid(), 0, 0.25), (Tanh(), -1, 1)):
        assert layer(x).tolist() == [low, (1 + low) / 2, 1]
        assert layer.backward(torch.ones(3)).tolist() == [0, slope, 0]


def test_flatten_keeps_rows_and_gives_the_gradient_its_shape_back():
    layer, x = Flatten(), torch.rand(2, 3, 4, 5)
    assert layer(x).shape == (2, 60)
    assert torch.equal(layer.backward(layer(x)), x)


def test_dropout_drops_with_probability_p_and_keeps_the_mean():
    layer = Dropout(0.3)
    y = layer(torch.ones(200, 500))
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.backward(torch.ones(200, 500)), y)


def test_dropout_does_nothing_in_eval_mode():
    layer, x = Dropout(0.9).eval(), torch.rand(4, 5)
    assert torch.equal(layer(x), x) and torch.equal(layer.backward(x), x)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_dropout_refuses_an_invalid_probability(p):
    with pytest.raises(ValueError, match=rf"Dropout\(p={p}\): expected a probability from 0 to below 1"):
        Dropout(p)


def test_batch_norm_makes_every_feature_mean_0_and_variance_1():
    x = torch.randn(64, 3, 5, 5, generator=dice()) * torch.tensor([1.0, 10, 100]).reshape(3, 1, 1) + 7
    y = BatchNorm(3)(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert (y.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.7, "eps": 0.2}], ids=str)
@pytest.mark.parametrize("shape", [(8, 3), (2, 3), (4, 3, 5, 2), (1, 3, 2, 1)], ids=str)
def test_batch_norm_and_its_running_statistics_are_pytorchs(shape, settings):
    ours = BatchNorm(3, **settings).to(torch.float64)
    theirs = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3, **settings).double()
    for seed in range(5):
        x = torch.randn(shape, generator=dice(seed), dtype=torch.float64) * (seed + 1) + seed
        torch.testing.assert_close(ours(x), theirs(x).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-13, atol=0)
    one = x[:1]  # a single example: its own mean and variance would say nothing
    torch.testing.assert_close(ours.eval()(one), theirs.eval()(one).detach(), rtol=1e-12, atol=1e-12)


def test_the_gradient_through_batch_norm_sums_to_zero_because_a_common_shift_changes_nothing():
    layer, x = BatchNorm(3), torch.randn(16, 3, generator=dice())
    layer(x)
    assert layer.backward(torch.randn(16, 3, generator=dice(1))).sum(0).abs().max() < 1e-5


def test_batch_norm_refuses_a_batch_of_one_value_and_wrong_shapes():
    with pytest.raises(ValueError, match=r"cannot train on one value per feature, \(1, 3\); use a larger batch"):
        BatchNorm(3)(torch.ones(1, 3))
    for shape in [(4, 2), (4, 3, 5)]:
        with pytest.raises(ValueError, match=r"BatchNorm expects 3 features, \(n, features, ...\), got \(4, "):
            BatchNorm(3)(torch.ones(shape))


def test_the_gradient_of_softmax_cross_entropy_is_prediction_minus_target():
    loss, logits = SoftmaxCrossEntropy(), torch.tensor([[2.0, 1, 0], [0, 0, 0]])
    value = loss(logits, torch.tensor([0, 2]))
    predicted, true = logits.softmax(1), torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(value, nn.functional.cross_entropy(logits, torch.tensor([0, 2])))
    torch.testing.assert_close(loss.backward(), (predicted - true) / 2)


def test_the_gradient_of_sigmoid_cross_entropy_is_prediction_minus_target():
    loss, logits = SigmoidCrossEntropy(), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 0, 1]] * 4, dtype=torch.float64)
    torch.nn.functional.binary_cross_entropy_with_logits(logits, target).backward()
    loss(logits.detach(), target)
    torch.testing.assert_close(loss.backward(), logits.grad)


def test_softmax_cross_entropy_is_finite_for_huge_scores():
    loss = SoftmaxCrossEntropy()
    assert loss(torch.tensor([[1e4, 0, -1e4]]), torch.tensor([1])).item() == 1e4
    assert loss.backward().tolist() == [[1, -1, 0]]


def test_the_losses_refuse_wrong_shapes_and_values():
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="label 3 is out of range: expected 0 to 2 for 3 classes"):
        SoftmaxCrossEntropy()(logits, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"expected class indices \(2,\) or one-hot labels \(2, 3\)"):
        SoftmaxCrossEntropy()(logits, torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"prediction has shape \(2, 3\) and target \(3,\)"):
        MeanSquaredError()(logits, torch.zeros(3))


def test_backward_adds_to_the_gradients_that_are_there():
    layer, x = Linear(3, 2), torch.rand(4, 3)
    layer(x)
    layer.backward(torch.ones(4, 2))
    once = layer.weight.grad.clone()
    layer.backward(torch.ones(4, 2))
    torch.testing.assert_close(layer.weight.grad, 2 * once)


def test_a_sequence_lists_its_parameters_in_order_and_sets_the_mode_of_all():
    network = Sequential(Linear(4, 3), Sequential(BatchNorm(3), Dropout(0.5)), Linear(3, 2))
    assert [tuple(p.shape) for p in network.parameters()] == [(3, 4), (3,), (3,), (3,), (2, 3), (2,)]
    network.eval()
    assert not any(layer.training for layer in network.modules())
    network.train()
    assert all(layer.training for layer in network.modules())


def test_an_empty_sequential_is_the_identity():
    x = torch.rand(2, 3)
    assert Sequential()(x) is x and Sequential().backward(x) is x


def test_to_converts_parameters_and_running_statistics():
    network = Sequential(Linear(2, 2), BatchNorm(2)).to(torch.float64)
    norm = network.layers[1]
    assert {t.dtype for t in (*network.parameters(), norm.running_mean, norm.running_var)} == {torch.float64}


def seeded_network(seed: int) -> Layer:
    torch.manual_seed(seed)
    return mlp(4, 3, 2)


def test_the_same_seed_gives_the_same_network():
    one, two, other = (seeded_network(seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.parameters()[0], other.parameters()[0])


def test_the_example_checks_each_gradient_and_predicts_a_small_step(capsys):
    main()
    lines = capsys.readouterr().out.splitlines()
    errors = [float(line.split()[-1]) for line in lines[-10:-3]]
    assert len(errors) == 7 and max(errors) < 1e-6
    measured, predicted = (float(word) for word in lines[-3].replace(";", "").split() if word[0] in "+-")
    assert measured == pytest.approx(predicted, rel=0.02) and measured < 0


def test_a_layer_must_implement_forward_and_backward():
    with pytest.raises(NotImplementedError):
        Layer()(torch.ones(1))
    with pytest.raises(NotImplementedError):
        Layer().backward(torch.ones(1))
