"""Half precision: underflow, loss scaling compared with `torch.amp.GradScaler`, master weights, prediction."""

import copy
import math

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.autograd import Variable
from kit.mechanism.layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import SGD
from kit.mechanism.precision import (
    GradScaler,
    MasterWeights,
    agreement,
    train,
    underflow_fraction,
)

LOSS, LARGEST = SoftmaxCrossEntropy(), torch.finfo(torch.float32).max


def digits():
    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    return (x[:600], y[:600]), x[600:]


def network(seed=0):
    torch.manual_seed(seed)
    return Sequential(Linear(64, 64), ReLU(), Linear(64, 10))


def optimizer_of(grad):
    parameter = torch.zeros_like(grad)
    parameter.grad = grad
    return SGD([parameter], lr=0.1)


def loss_after(steps, lr, dtype, scaler=None, master=True):
    data, _ = digits()
    trained, _ = train(network(), data, steps, lr, dtype, scaler, master)
    return float(LOSS(trained.to(torch.float32)(data[0]), data[1]))


# What the numbers can hold


def test_a_gradient_of_1e_8_is_zero_in_float16_and_not_in_bfloat16():
    small = torch.tensor([1e-8, 1e-9, -1e-12])
    assert underflow_fraction(small, torch.float16) == 1
    assert underflow_fraction(small, torch.bfloat16) == 0
    assert underflow_fraction(small * 2.0**30, torch.float16) == 0
    assert underflow_fraction(torch.tensor([0.0, 1e-9, 1.0]), torch.float16) == 0.5
    assert underflow_fraction(torch.zeros(3), torch.float16) == 0
    assert underflow_fraction(torch.tensor([0.0, 1e-9]), torch.float16) == 1


def test_float16_is_finer_and_bfloat16_reaches_further():
    assert torch.tensor(1.001).half() != 1
    assert torch.tensor(1.001).bfloat16() == 1
    assert torch.tensor(70_000.0).half() == math.inf
    assert torch.tensor(70_000.0).bfloat16() < math.inf


# Scaling the loss


def test_loss_scaling_prevents_underflow_of_the_gradient_of_a_trained_network():
    data, _ = digits()
    trained, _ = train(network(), data, 300, 0.5, torch.float32)
    LOSS(trained(data[0]), data[1])
    assert underflow_fraction(LOSS.backward(), torch.float16) > 0.4
    assert underflow_fraction(GradScaler().scale(LOSS.backward()), torch.float16) < 0.03


def test_scale_and_weights_are_those_of_torchs_grad_scaler_bit_for_bit():
    ours, theirs = torch.ones(3), torch.ones(3, requires_grad=True)
    by_hand, by_torch = SGD([ours], lr=0.1), torch.optim.SGD([theirs], lr=0.1)
    settings = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3}
    scaler, judge = GradScaler(2.0**10, **settings), torch.amp.GradScaler("cpu", init_scale=2.0**10, **settings)
    dice, stepped = torch.Generator().manual_seed(0), []
    for number in range(60):
        grad = torch.randn(3, generator=dice) * scaler.factor
        if number in (4, 5, 17, 30):
            grad[number % 3] = math.inf if number % 2 else math.nan
        assert judge.scale(torch.tensor(1.5)) == scaler.scale(torch.tensor(1.5))
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        stepped.append(scaler.step(by_hand))
        judge.step(by_torch)
        scaler.update()
        judge.update()
        assert scaler.factor == judge.get_scale()
        assert torch.equal(ours, theirs.detach())
    assert [number for number, done in enumerate(stepped) if not done] == [4, 5, 17, 30]


@pytest.mark.parametrize(("start", "end"), [(2.0**127, 2.0**127), (LARGEST / 2, LARGEST)])
def test_the_scale_stays_finite_in_float32_as_torchs_does(start, end):
    scaler, judge = GradScaler(start, growth_interval=1), torch.amp.GradScaler("cpu", start, growth_interval=1)
    weight = torch.ones(1, requires_grad=True)
    weight.grad = torch.ones(1)
    judge.scale(torch.tensor(0.0))
    judge.step(torch.optim.SGD([weight], lr=1.0))
    judge.update()
    scaler.unscale(optimizer_of(torch.ones(1)))
    scaler.update()
    assert scaler.factor == judge.get_scale() == end


def test_a_step_with_an_infinite_gradient_is_skipped_and_the_scale_halved():
    weight = torch.ones(2)
    weight.grad, scaler = torch.tensor([1.0, math.inf]), GradScaler(init_scale=8.0)
    assert scaler.step(SGD([weight], lr=0.1)) is False
    assert torch.equal(weight, torch.ones(2))
    scaler.update()
    assert scaler.factor == 4.0


def test_without_an_infinite_gradient_the_scale_stays():
    scaler = GradScaler(init_scale=8.0)
    scaler.update()
    assert scaler.factor == 8.0


def test_gradients_can_be_unscaled_before_the_step():
    weight = torch.ones(2)
    weight.grad, scaler, optimizer = torch.full((2,), 8.0), GradScaler(init_scale=8.0), SGD([weight], lr=0.5)
    scaler.unscale(optimizer)
    assert torch.equal(weight.grad, torch.ones(2))
    assert scaler.step(optimizer) is True
    assert torch.equal(weight, torch.full((2,), 0.5))


def test_a_variable_can_be_scaled_as_a_tensor_can():
    x = torch.tensor([3.0])
    GradScaler(init_scale=4.0).scale(Variable(x) * 2.0).sum().backward()
    assert x.grad.item() == 8.0


def test_gradients_too_small_for_float16_are_useless_until_the_scale_is_adapted():
    start, full = loss_after(0, 0.02, torch.float32), loss_after(150, 0.02, torch.float32)
    lost = loss_after(150, 0.02, torch.float16, GradScaler(2.0**-16))
    found = loss_after(150, 0.02, torch.float16, GradScaler(2.0**-16, growth_interval=2))
    assert full < start - 0.8
    assert lost > start - 0.1
    assert found < full + 0.3


# Master weights


def test_an_update_below_half_a_step_does_not_change_a_float16_weight():
    weight = torch.ones(1, dtype=torch.float16)
    for _ in range(1000):
        weight += 0.0004
    assert weight.item() == 1


def test_master_weights_add_up_small_updates():
    net = Sequential(Linear(1, 1)).to(torch.float16)
    net.layers[0].weight.fill_(1.0)
    copies = MasterWeights(net)
    optimizer = SGD(copies.full, lr=1.0)
    for _ in range(1000):
        net.layers[0].weight.grad = torch.full((1, 1), -0.0004, dtype=torch.float16)
        net.layers[0].bias.grad = torch.zeros(1, dtype=torch.float16)
        copies.copy_gradients()
        optimizer.step()
        copies.copy_weights()
    assert net.layers[0].weight.item() == pytest.approx(1.4, abs=0.001)
    assert net.layers[0].weight.dtype == torch.float16


def test_bfloat16_with_master_weights_trains_like_float32_and_without_them_worse():
    full = loss_after(300, 0.02, torch.float32)
    assert loss_after(300, 0.02, torch.bfloat16) == pytest.approx(full, abs=0.01)
    assert loss_after(300, 0.02, torch.bfloat16, master=False) > full + 0.3


def test_without_master_weights_the_weights_of_half_precision_are_updated_themselves():
    (x, y), _ = digits()
    start = network()
    trained, skipped = train(start, (x, y), 5, 0.5, torch.bfloat16, master=False)
    net, loss = copy.deepcopy(start).to(torch.bfloat16), SoftmaxCrossEntropy()
    for _ in range(5):
        loss(net(x.bfloat16()).float(), y)
        net.backward(loss.backward().bfloat16())
        for p in net.parameters():
            p.add_(p.grad, alpha=-0.5)
            p.grad = None
    assert skipped == 0
    assert all(torch.equal(p, q) for p, q in zip(trained.parameters(), net.parameters(), strict=True))


def test_every_skipped_step_halves_the_scale_and_is_counted():
    scaler = GradScaler(2.0**30)
    _, skipped = train(network(), digits()[0], 40, 0.02, torch.float16, scaler)
    assert 0 < skipped < 40 and scaler.factor == 2.0 ** (30 - skipped)


# Predicting


@pytest.mark.parametrize(("dtype", "equal", "distance"), [(torch.float16, 0.995, 0.005), (torch.bfloat16, 0.99, 0.05)])
def test_the_predictions_of_a_trained_network_hardly_change_in_half_precision(dtype, equal, distance):
    data, others = digits()
    for seed in range(3):
        trained, _ = train(network(seed), data, 300, 0.5, torch.float32)
        share, largest = agreement(trained, others, dtype)
        full, half = (
            copy.deepcopy(trained).to(kind)(others.to(kind)).float().softmax(1) for kind in (torch.float, dtype)
        )
        assert share == pytest.approx((full.argmax(1) == half.argmax(1)).double().mean().item())
        assert largest == pytest.approx((full - half).abs().max().item(), rel=1e-3)
        assert share >= equal
        assert 0 < largest < distance


def test_unscaling_twice_and_unscaling_float16_are_refused():
    optimizer, scaler = optimizer_of(torch.ones(2)), GradScaler()
    scaler.unscale(optimizer)
    with pytest.raises(ValueError, match=r"divided by the scale already; call update\(\) once after every step\(\)"):
        scaler.unscale(optimizer)
    with pytest.raises(ValueError, match="float16 gradients would underflow when divided; use MasterWeights"):
        GradScaler().unscale(optimizer_of(torch.ones(2, dtype=torch.float16)))
