"""Sixteen bits by hand: what they round away, and how training lives with it. The judges are torch's own types."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from kit.mechanism.autograd import Variable
from kit.mechanism.layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import SGD
from kit.mechanism.precision import (
    BFLOAT16,
    FLOAT16,
    LossScaler,
    MasterWeights,
    agreement,
    train,
    under_autocast,
    underflowing,
)

FORMATS = [(FLOAT16, torch.float16), (BFLOAT16, torch.bfloat16)]
LOSS = SoftmaxCrossEntropy()


def digits():
    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    return (x[:600], y[:600]), x[600:]


def network(seed=0):
    dice = torch.Generator().manual_seed(seed)
    return Sequential(Linear(64, 64, dice), ReLU(), Linear(64, 10, dice))


def loss_after(steps, lr, dtype, scaler=None, master=True):
    data, _ = digits()
    trained, _ = train(network(), data, steps, lr, dtype, scaler, master)
    return float(LOSS(trained.to(torch.float32)(data[0]), data[1]))


# What the numbers can hold


@pytest.mark.parametrize(("kind", "dtype"), FORMATS)
def test_three_small_numbers_say_how_far_and_how_finely_a_format_counts(kind, dtype):
    facts = torch.finfo(dtype)
    assert (kind.largest, kind.step, 2.0**kind.lowest) == (facts.max, facts.eps, facts.smallest_normal)
    assert torch.tensor(kind.smallest).to(dtype) == kind.smallest
    assert torch.tensor(kind.smallest / 2).to(dtype) == 0


@pytest.mark.parametrize(("kind", "dtype"), FORMATS)
def test_rounding_by_hand_equals_torchs_in_every_bit_for_all_kinds_of_numbers(kind, dtype):
    dice = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=dice).to(torch.int32)
    everywhere = bits.view(torch.float32)  # any 32 bits: tiny, huge, infinite, not a number
    near_one = torch.randn(100_000, generator=dice) * 2.0 ** torch.randint(-26, 18, (100_000,), generator=dice)
    halfway = 1 + torch.arange(64) * kind.step / 2
    edge = torch.tensor(
        [0.0, -0.0, kind.largest, kind.largest * (1 + kind.step / 4), kind.smallest / 2, 65520.0, math.inf]
    )
    x = torch.cat([everywhere, near_one, halfway, edge, -edge])
    x = x[~x.isnan()]
    by_hand, judge = kind.round(x), x.to(dtype).float()
    assert torch.equal(by_hand, judge)
    assert torch.equal(by_hand.signbit(), judge.signbit())
    assert kind.round(torch.tensor([math.nan])).isnan().all()


def test_a_gradient_of_a_hundred_millionth_is_nothing_in_float16_and_something_in_bfloat16():
    small = torch.tensor([1e-8, 1e-9, -1e-12])
    assert underflowing(small, torch.float16) == 1
    assert underflowing(small, torch.bfloat16) == 0
    assert underflowing(small * 2.0**30, torch.float16) == 0
    assert underflowing(torch.tensor([0.0, 1e-9, 1.0]), torch.float16) == 0.5


def test_float16_is_finer_and_bfloat16_reaches_further():
    assert torch.tensor(1.001).half() != 1
    assert torch.tensor(1.001).bfloat16() == 1
    assert torch.tensor(70_000.0).half() == math.inf
    assert torch.tensor(70_000.0).bfloat16() < math.inf


# Scaling the loss


def test_scaling_the_loss_saves_what_float16_would_lose_of_a_trained_networks_gradient():
    data, _ = digits()
    trained, _ = train(network(), data, 300, 0.5, torch.float32)
    LOSS(trained(data[0]), data[1])
    assert underflowing(LOSS.backward(), torch.float16) > 0.4
    assert underflowing(LossScaler().scale(LOSS.backward()), torch.float16) < 0.03


def test_the_scale_and_the_weights_are_those_of_torchs_grad_scaler_in_every_bit():
    ours, theirs = torch.ones(3), torch.ones(3, requires_grad=True)
    by_hand, by_torch = SGD([ours], lr=0.1), torch.optim.SGD([theirs], lr=0.1)
    settings = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3}
    scaler, judge = LossScaler(2.0**10, **settings), torch.amp.GradScaler("cpu", init_scale=2.0**10, **settings)
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


def test_the_scale_stops_growing_where_float32_ends_as_torchs_does():
    scaler, judge = LossScaler(2.0**127, growth_interval=1), torch.amp.GradScaler("cpu", 2.0**127, growth_interval=1)
    weight = torch.ones(1, requires_grad=True)
    weight.grad = torch.ones(1)
    judge.scale(torch.tensor(0.0))
    judge.step(torch.optim.SGD([weight], lr=1.0))
    judge.update()
    scaler.unscale([torch.ones(1)])
    scaler.update()
    assert scaler.factor == judge.get_scale() == 2.0**127


def test_a_step_with_an_infinite_gradient_is_skipped_and_the_scale_halved():
    weight = torch.ones(2)
    weight.grad, scaler = torch.tensor([1.0, math.inf]), LossScaler(scale=8.0)
    assert scaler.step(SGD([weight], lr=0.1)) is False
    assert torch.equal(weight, torch.ones(2))
    scaler.update()
    assert scaler.factor == 4.0


def test_gradients_may_be_looked_at_in_their_true_size_before_the_step():
    weight = torch.ones(2)
    weight.grad, scaler = torch.full((2,), 8.0), LossScaler(scale=8.0)
    scaler.unscale([weight.grad])
    assert torch.equal(weight.grad, torch.ones(2))
    assert scaler.step(SGD([weight], lr=0.5)) is True
    assert torch.equal(weight, torch.full((2,), 0.5))


def test_a_variable_can_be_scaled_as_a_tensor_can():
    x = torch.tensor([3.0])
    LossScaler(scale=4.0).scale(Variable(x) * 2.0).sum().backward()
    assert x.grad.item() == 8.0


def test_gradients_too_small_for_float16_teach_nothing_until_the_scale_has_found_its_size():
    start, full = loss_after(0, 0.02, torch.float32), loss_after(150, 0.02, torch.float32)
    lost = loss_after(150, 0.02, torch.float16, LossScaler(2.0**-16))
    found = loss_after(150, 0.02, torch.float16, LossScaler(2.0**-16, growth_interval=2))
    assert full < start - 0.8
    assert lost > start - 0.1
    assert found < full + 0.3


# Master weights


def test_steps_smaller_than_half_a_spacing_leave_a_float16_weight_where_it_is():
    weight = torch.ones(1, dtype=torch.float16)
    for _ in range(1000):
        weight += 0.0004
    assert weight.item() == 1


def test_a_master_copy_adds_them_up():
    net = Sequential(Linear(1, 1)).to(torch.float16)
    net.layers[0].weight.fill_(1.0)
    copies = MasterWeights(net)
    optimizer = SGD(copies.full, lr=1.0)
    for _ in range(1000):
        net.layers[0].weight.grad = torch.full((1, 1), -0.0004, dtype=torch.float16)
        net.layers[0].bias.grad = torch.zeros(1, dtype=torch.float16)
        copies.take_gradients()
        optimizer.step()
        copies.give_weights()
    assert net.layers[0].weight.item() == pytest.approx(1.4, abs=0.001)
    assert net.layers[0].weight.dtype == torch.float16


def test_with_master_weights_bfloat16_trains_as_float32_does_and_without_it_lags_behind():
    full = loss_after(300, 0.02, torch.float32)
    assert loss_after(300, 0.02, torch.bfloat16) == pytest.approx(full, abs=0.01)
    assert loss_after(300, 0.02, torch.bfloat16, master=False) > full + 0.3


# Predicting


@pytest.mark.parametrize(("dtype", "equal", "distance"), [(torch.float16, 0.995, 0.005), (torch.bfloat16, 0.99, 0.05)])
def test_a_trained_networks_output_barely_moves_in_half_precision(dtype, equal, distance):
    data, others = digits()
    for seed in range(3):
        trained, _ = train(network(seed), data, 300, 0.5, torch.float32)
        share, largest = agreement(trained, others, dtype)
        assert share >= equal
        assert 0 < largest < distance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_casts_before_every_matrix_product_and_nowhere_else(dtype):
    net, (_, others) = network(), digits()
    x = others
    for layer in net.layers:
        x = (x.to(dtype) @ layer.weight.to(dtype).T) + layer.bias if isinstance(layer, Linear) else layer(x)
    assert torch.equal(under_autocast(net, others, dtype), x)
    assert not torch.equal(net(others), x)
    assert under_autocast(lambda x: x @ net.layers[0].weight.T, others, dtype).dtype == dtype
    assert net.layers[0].weight.dtype == torch.float32


def test_what_cannot_be_done_is_refused_in_words():
    with pytest.raises(ValueError, match="scale -1, .* expected scale > 0, growth > 1, backoff between 0 and 1"):
        LossScaler(scale=-1)
    with pytest.raises(ValueError, match=r"update\(\) without a step\(\)"):
        LossScaler().update()
    scaler = LossScaler()
    scaler.unscale([torch.ones(2)])
    with pytest.raises(ValueError, match=r"divided by the scale before; call update\(\) once after every step\(\)"):
        scaler.unscale([torch.ones(2)])
    with pytest.raises(ValueError, match="float16 gradients would underflow again when divided; keep MasterWeights"):
        LossScaler().unscale([torch.ones(2, dtype=torch.float16)])
