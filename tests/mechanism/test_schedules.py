"""Schedules beside fastai's (equal in every bit) and PyTorch's (equal but for rounding)."""

import fastai.callback.schedule as fastai
import numpy as np
import pytest
import torch

from kit.mechanism.schedules import combine, cosine, exponential, linear, one_cycle

POSITIONS = [step / 100 for step in range(101)]
PAIRS = {
    "linear": (linear(2.0, 0.1), fastai.SchedLin(2.0, 0.1)),
    "cosine": (cosine(2.0, 0.1), fastai.SchedCos(2.0, 0.1)),
    "exponential": (exponential(2.0, 0.1), fastai.SchedExp(2.0, 0.1)),
    "one cycle's rate": (one_cycle(0.01)[0], fastai.combined_cos(0.25, 0.01 / 25, 0.01, 0.01 / 1e5)),
    "one cycle's momentum": (one_cycle(0.01)[1], fastai.combined_cos(0.25, 0.95, 0.85, 0.95)),
    "the frozen phase": (one_cycle(0.01, pct_start=0.99)[0], fastai.combined_cos(0.99, 0.01 / 25, 0.01, 0.01 / 1e5)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_fastai_in_every_bit(name):
    ours, theirs = PAIRS[name]
    assert [ours(position) for position in POSITIONS] == [theirs(position) for position in POSITIONS]


def test_cosine_is_pytorchs_annealing_except_for_rounding():
    """PyTorch computes each value from the one before, ours from the position."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100, eta_min=0.1)
    ours = cosine(1.0, 0.1)
    for step in range(100):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours(step / 100), rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_one_cycle_is_pytorchs_except_for_the_float32_position():
    """PyTorch's first part ends a step before `pct_start` of all steps: 26 of 101, so that both turn at step 25."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 101, pct_start=26 / 101, final_div_factor=1e5 / 25)
    rate, momentum = one_cycle(1.0)
    for step in range(101):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate(step / 100), abs=1e-6)
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(momentum(step / 100), abs=1e-6)
        optimizer.step()
        if step < 100:
            scheduler.step()


def test_the_rate_goes_up_then_down_and_the_momentum_the_other_way():
    rate, momentum = one_cycle(0.01)
    rates, momenta = np.array([[rate(p), momentum(p)] for p in POSITIONS]).T
    assert rates.argmax() == momenta.argmin() == 25
    assert (rates[0], rates[25], rates[-1]) == pytest.approx((0.01 / 25, 0.01, 1e-7))
    assert (momenta[0], momenta[25], momenta[-1]) == pytest.approx((0.95, 0.85, 0.95))


@pytest.mark.parametrize("pct_start", [0, 1, -0.5])
def test_an_invalid_pct_start_is_refused(pct_start):
    with pytest.raises(ValueError, match=f"pct_start {pct_start}: expected a fraction above 0 and below 1"):
        combine(pct_start, linear(0, 1), linear(1, 0))
