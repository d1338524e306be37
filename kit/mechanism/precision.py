"""Half precision: what 16 bits can hold, what they lose in training, and the two tricks that give it back.

A floating point number is a sign, a few significant bits and an exponent. Half as many bits are half as much to move
and much faster to multiply; what is left is a float16 with fine steps and a short reach, or a bfloat16 with coarse
steps and the reach of float32. A network hardly notices when it predicts. Training does: gradients are small enough to
become 0 (so the loss is scaled up), and steps are too small to move a weight (so a master copy is kept in float32).
Source of both: Micikevicius et al., "Mixed precision training", 2018. In `under_autocast` the casts made by hand are
swapped for PyTorch's autocast, and are equal to them.

    python -m kit.mechanism.precision
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kit.mechanism.activations import softmax
from kit.mechanism.autograd import Variable
from kit.mechanism.layers import Layer, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import SGD, Optimizer


@dataclass(frozen=True)
class Format:
    """A binary floating point format: how finely and how far it counts."""

    bits: int  # significant bits, the leading 1 that is not stored among them
    lowest: int  # exponent of the smallest number that has all of its bits; below it they go one by one
    highest: int  # exponent of the largest

    @property
    def largest(self) -> float:
        """All bits 1: (2 - 2^(1 - bits)) 2^highest; what rounds to more is infinity."""
        return (2 - 2.0 ** (1 - self.bits)) * 2.0**self.highest

    @property
    def smallest(self) -> float:
        """The last bit alone: half of this and less rounds to 0, it underflows."""
        return 2.0 ** (self.lowest + 1 - self.bits)

    @property
    def step(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0 ** (1 - self.bits)

    def round(self, x: Tensor) -> Tensor:
        """The nearest number of this format to each of x, any shape, the even one of two as near; x's own dtype.

        Numbers between 2^e and 2^(e+1) are spaced by 2^(e + 1 - bits): divide by that, round to a whole number,
        multiply. x is float32 or float64; that is wide enough for the division to be exact.
        """
        exponent = (torch.frexp(x.double()).exponent - 1).clamp(min=self.lowest)
        spacing = torch.ldexp(torch.ones_like(x, dtype=torch.float64), exponent + 1 - self.bits)
        rounded = torch.where(x.isfinite(), (x.double() / spacing).round() * spacing, x.double())
        return torch.where(rounded.abs() > self.largest, rounded.sign() * math.inf, rounded).to(x.dtype)


FLOAT16 = Format(bits=11, lowest=-14, highest=15)
BFLOAT16 = Format(bits=8, lowest=-126, highest=127)


def underflowing(x: Tensor, dtype: torch.dtype) -> float:
    """The share of the numbers in x that are not 0 and become 0 in this dtype."""
    there = x != 0
    return float(((x.to(dtype) == 0) & there).sum() / there.sum().clamp(min=1))


class LossScaler:
    """Multiply the loss by a large number before going back, and divide the gradients by it after: none underflows.

    The right number is not known, so it is looked for: where a gradient comes out infinite or NaN the scale was too
    large, the step is skipped and the scale backs off; after `growth_interval` good steps in a row it grows. Powers of
    two change the exponent of a number and none of its bits. Defaults and rules are those of `torch.amp.GradScaler`:

        network.backward(scaler.scale(loss.backward()))
        scaler.step(optimizer)
        scaler.update()
    """

    def __init__(
        self,
        scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ):
        if not (scale > 0 and growth_factor > 1 and 0 < backoff_factor < 1 and growth_interval >= 1):
            given = f"scale {scale}, growth {growth_factor}, backoff {backoff_factor}, interval {growth_interval}"
            raise ValueError(
                f"{given}: expected scale > 0, growth > 1, backoff between 0 and 1, interval of at least 1"
            )
        self.factor, self.growth_factor, self.backoff_factor = float(scale), growth_factor, backoff_factor
        self.growth_interval, self.good_steps = growth_interval, 0
        self.unscaled, self.overflowed = False, False

    def scale(self, loss: Tensor | Variable) -> Tensor | Variable:
        """The loss, or the gradient that it begins with, times the scale."""
        return loss * self.factor

    def unscale(self, grads: Sequence[Tensor]) -> None:
        """Divide the gradients by the scale, in place, and note whether one of them is infinite or NaN.

        Once a step: to clip or look at the true gradients before `step`, which does it otherwise.
        """
        if self.unscaled:
            raise ValueError("these gradients were divided by the scale before; call update() once after every step()")
        if any(grad.dtype == torch.float16 for grad in grads):
            raise ValueError("float16 gradients would underflow again when divided; keep MasterWeights and pass theirs")
        for grad in grads:
            grad.mul_(1 / self.factor)
        self.overflowed, self.unscaled = any(not bool(grad.isfinite().all()) for grad in grads), True

    def step(self, optimizer: Optimizer) -> bool:
        """`optimizer.step()` if every gradient is finite; False where the step was skipped."""
        if not self.unscaled:
            held = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self.unscale(held)
        if not self.overflowed:
            optimizer.step()
        return not self.overflowed

    def update(self) -> None:
        """Back off after a skipped step; grow after enough good ones, as long as float32 can hold the scale."""
        if not self.unscaled:
            raise ValueError("update() without a step(): there is nothing to learn about the scale yet")
        self.good_steps = 0 if self.overflowed else self.good_steps + 1
        if self.overflowed:
            self.factor *= self.backoff_factor
        elif self.good_steps == self.growth_interval:
            grown, self.good_steps = self.factor * self.growth_factor, 0
            self.factor = grown if grown <= torch.finfo(torch.float32).max else self.factor
        self.unscaled, self.overflowed = False, False


class MasterWeights:
    """float32 copies of a half-precision network's parameters: steps are added up where they are not rounded away.

    Near 1, float16 moves in steps of 2^-10: adding 0.0004 a thousand times leaves 1 where it was.
    """

    def __init__(self, network: Layer):
        self.half = network.parameters()
        self.full = [p.float() for p in self.half]

    def take_gradients(self) -> None:
        """Hand the half-precision gradients to the master copies, in float32, for the optimiser to see."""
        for full, half in zip(self.full, self.half, strict=True):
            full.grad = half.grad.float()

    def give_weights(self) -> None:
        """Round the moved master copies back into the network, and clear its gradients."""
        for full, half in zip(self.full, self.half, strict=True):
            half.copy_(full)
            half.grad = None


def train(
    network: Layer,
    data: tuple[Tensor, Tensor],
    steps: int,
    lr: float,
    dtype: torch.dtype,
    scaler: LossScaler | None = None,
    master: bool = True,
) -> tuple[Layer, int]:
    """Gradient descent with forward and backward in `dtype`; returns the trained copy and how many steps were skipped.

    data: x (n, inputs), y (n,). The loss is taken in float32, as autocast does: it is a sum of many small numbers.
    No scaler: the loss as it is. master=False: the optimiser moves the half-precision weights themselves.
    """
    network, loss, skipped = copy.deepcopy(network).to(dtype), SoftmaxCrossEntropy(), 0
    copies = MasterWeights(network)
    if not master:
        copies.full = copies.half
    optimizer, x, y = SGD(copies.full, lr), data[0].to(dtype), data[1]
    for _ in range(steps):
        loss(network(x).float(), y)
        grad = loss.backward()
        network.backward((scaler.scale(grad) if scaler else grad).to(dtype))
        if master:
            copies.take_gradients()
        if scaler:
            skipped += not scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        copies.give_weights()
    return network, skipped


def probabilities(network: Layer, x: Tensor, dtype: torch.dtype) -> Tensor:
    """x (n, ...) through a copy of the network in `dtype`: softmax, taken in float32, (n, classes)."""
    network = copy.deepcopy(network).eval().to(dtype)
    return softmax(network(x.to(dtype)).float())


def agreement(network: Layer, x: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Predict in float32 and in `dtype`: the share of equal answers, and the largest difference in a probability."""
    full, half = (probabilities(network, x, kind) for kind in (torch.float32, dtype))
    return float((full.argmax(1) == half.argmax(1)).float().mean()), float((full - half).abs().max())


def under_autocast(function: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """Here the library takes over: `torch.autocast` casts the inputs of every matrix product to `dtype`, one by one.

    Weights stay in float32, so that they are the master copies; `torch.amp.GradScaler` takes LossScaler's place.
    """
    with torch.autocast(x.device.type, dtype):
        return function(x)


def main() -> None:
    """What 16 bits hold; then digits: does the answer move, which gradients are lost, and what training needs."""
    from sklearn.datasets import load_digits

    for name, kind in (("float16", FLOAT16), ("bfloat16", BFLOAT16)):
        print(f"{name:9} from {kind.smallest:.1e} to {kind.largest:.1e}; after 1 comes {1 + kind.step}")
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    dice, loss, data = torch.Generator().manual_seed(0), SoftmaxCrossEntropy(), (x[:600], y[:600])
    start = Sequential(Linear(64, 64, dice), ReLU(), Linear(64, 10, dice))
    trained, _ = train(start, data, 300, 0.5, torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        same, difference = agreement(trained, x[600:], dtype)
        print(f"{str(dtype)[6:]:9} {same:.2%} of the answers as in float32, probabilities within {difference:.4f}")
    loss(trained(data[0]), data[1])
    for factor in (1.0, 2.0**16):
        lost = underflowing(loss.backward() * factor, torch.float16)
        print(f"loss times {factor:g}: {lost:.1%} of the gradient with respect to the logits becomes 0 in float16")
    print("300 steps at rate 0.02; the loss reached from 2.6")
    for name, dtype, scaler, master in (
        ("float32", torch.float32, None, True),
        ("bfloat16", torch.bfloat16, None, False),
        ("bfloat16, master weights", torch.bfloat16, None, True),
        ("float16, master weights", torch.float16, None, True),
        ("the same, gradients 2^-16 as large", torch.float16, LossScaler(2.0**-16), True),
        ("the same, the scale grows by itself", torch.float16, LossScaler(2.0**-16, growth_interval=5), True),
    ):
        network, skipped = train(start, data, 300, 0.02, dtype, scaler, master)
        print(f"{name:36} {loss(network(x[:600].to(dtype)).float(), y[:600]):.3f}, {skipped} steps skipped")


if __name__ == "__main__":
    main()
