"""Half precision: the limits of 16-bit floating point numbers, and how loss scaling and master weights remove them.

float16 has small steps between numbers and a small range; bfloat16 has large steps and the range of float32. For
prediction both are sufficient. In training, small gradients become 0 in float16, so the loss is scaled up; and updates
that are smaller than the step between two numbers are lost, so a float32 copy of the weights, the master weights, is
updated. Source: Micikevicius et al., Mixed precision training, 2018. Run `python -m kit.mechanism.precision`.
"""

import copy

import torch
from torch import Tensor

from kit.mechanism.activations import softmax
from kit.mechanism.autograd import Variable
from kit.mechanism.layers import Layer, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import SGD, Optimizer


def underflow_fraction(x: Tensor, dtype: torch.dtype) -> float:
    """Return the fraction of the nonzero elements of x that become 0 in `dtype`."""
    nonzero = x != 0
    return float(((x.to(dtype) == 0) & nonzero).sum() / nonzero.sum().clamp(min=1))


class GradScaler:
    """Dynamic loss scaling, with the rules and defaults of `torch.amp.GradScaler`.

    The loss is multiplied by a large scale before `backward`, so that gradients do not underflow, and the gradients are
    divided by it before the step. The scale is adapted: if a gradient is infinite or NaN, the step is skipped and the
    scale is multiplied by `backoff_factor`; after `growth_interval` steps without that, by `growth_factor`. Powers of
    two change only the exponent, so scaling does not round.

        network.backward(scaler.scale(loss.backward()))
        scaler.step(optimizer)
        scaler.update()
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ):
        self.factor, self.growth_factor, self.backoff_factor = float(init_scale), growth_factor, backoff_factor
        self.growth_interval, self.good_steps = growth_interval, 0
        self.unscaled, self.found_inf = False, False

    def scale(self, loss: Tensor | Variable) -> Tensor | Variable:
        """Return the loss, or the gradient at the start of `backward`, times the scale."""
        return loss * self.factor

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale in place, and note whether one is infinite or NaN.

        `step` does this; call it before, once, to clip or inspect the gradients.
        """
        if self.unscaled:
            raise ValueError("these gradients are divided by the scale already; call update() once after every step()")
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(grad.dtype == torch.float16 for grad in grads):
            raise ValueError(
                "float16 gradients would underflow when divided; use MasterWeights and optimise their copy"
            )
        for grad in grads:
            grad.mul_(1 / self.factor)
        self.found_inf, self.unscaled = any(not grad.isfinite().all() for grad in grads), True

    def step(self, optimizer: Optimizer) -> bool:
        """Call `optimizer.step()` if all gradients are finite; return whether it was called."""
        if not self.unscaled:
            self.unscale(optimizer)
        if not self.found_inf:
            optimizer.step()
        return not self.found_inf

    def update(self) -> None:
        """Adapt the scale after a step; it never becomes infinite in float32."""
        self.good_steps = 0 if self.found_inf else self.good_steps + 1
        if self.found_inf:
            self.factor *= self.backoff_factor
        elif self.good_steps == self.growth_interval:
            larger, self.good_steps = self.factor * self.growth_factor, 0
            self.factor = larger if larger <= torch.finfo(torch.float32).max else self.factor
        self.unscaled, self.found_inf = False, False


class MasterWeights:
    """float32 copies of the parameters of a half-precision network, for the optimizer.

    Near 1 the step between two float16 numbers is 2^-10: adding 0.0004 a thousand times to 1 gives 1.
    """

    def __init__(self, network: Layer):
        self.half = network.parameters()
        self.full = [p.float() for p in self.half]

    def copy_gradients(self) -> None:
        """Copy the gradients of the network to the float32 copies."""
        for full, half in zip(self.full, self.half, strict=True):
            full.grad = half.grad.float()

    def copy_weights(self) -> None:
        """Round the float32 copies into the network, and remove its gradients."""
        for full, half in zip(self.full, self.half, strict=True):
            half.copy_(full)
            half.grad = None


def train(
    network: Layer,
    data: tuple[Tensor, Tensor],
    steps: int,
    lr: float,
    dtype: torch.dtype,
    scaler: GradScaler | None = None,
    master: bool = True,
) -> tuple[Layer, int]:
    """Train a copy of the network by gradient descent in `dtype`; return it and the number of skipped steps.

    data: x (n, inputs), y (n,). The loss is computed in float32, as autocast does. Without `master` the optimizer
    updates the half-precision weights.
    """
    network, loss, skipped = copy.deepcopy(network).to(dtype), SoftmaxCrossEntropy(), 0
    weights = MasterWeights(network)
    if not master:
        weights.full = weights.half
    optimizer, x, y = SGD(weights.full, lr), data[0].to(dtype), data[1]
    for _ in range(steps):
        loss(network(x).float(), y)
        grad = loss.backward()
        network.backward((scaler.scale(grad) if scaler else grad).to(dtype))
        if master:
            weights.copy_gradients()
        if scaler:
            skipped += not scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        weights.copy_weights()
    return network, skipped


def agreement(network: Layer, x: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Predict in float32 and in `dtype`; return the fraction of equal classes and the largest probability difference.

    x: (n, inputs). Softmax is computed in float32.
    """
    full, half = (
        softmax(copy.deepcopy(network).eval().to(kind)(x.to(kind)).float()) for kind in (torch.float32, dtype)
    )
    return float((full.argmax(1) == half.argmax(1)).float().mean()), float((full - half).abs().max())


def main() -> None:
    """Print the range of both formats; then prediction, gradients and training on digits in half precision."""
    from kit.mechanism.batches import load_digits

    for dtype in (torch.float16, torch.bfloat16):
        info = torch.finfo(dtype)
        print(f"{dtype}: largest {info.max:.1e}, smallest {info.smallest_normal:.1e}, next after 1: {1 + info.eps}")
    torch.manual_seed(0)
    digits, loss = load_digits(), SoftmaxCrossEntropy()
    data, others = (digits.x[:600].flatten(1), digits.y[:600]), digits.x[600:].flatten(1)
    start = Sequential(Linear(64, 64), ReLU(), Linear(64, 10))
    trained, _ = train(start, data, 300, 0.5, torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        same, difference = agreement(trained, others, dtype)
        print(f"{dtype}: {same:.2%} of the predictions as in float32, probabilities within {difference:.4f}")
    loss(trained(data[0]), data[1])
    for factor in (1.0, 2.0**16):
        lost = underflow_fraction(loss.backward() * factor, torch.float16)
        print(f"loss times {factor:g}: {lost:.1%} of the gradient with respect to the logits is 0 in float16")
    print("loss after 300 steps with lr 0.02")
    for name, dtype, scaler, master in (
        ("float32", torch.float32, None, True),
        ("bfloat16", torch.bfloat16, None, False),
        ("bfloat16, master weights", torch.bfloat16, None, True),
        ("float16, master weights", torch.float16, None, True),
        ("same, gradients times 2^-16", torch.float16, GradScaler(2.0**-16), True),
        ("same, with an adapted scale", torch.float16, GradScaler(2.0**-16, growth_interval=5), True),
    ):
        network, skipped = train(start, data, 300, 0.02, dtype, scaler, master)
        print(f"{name:28} {loss(network(data[0].to(dtype)).float(), data[1]):.3f}, {skipped} steps skipped")


if __name__ == "__main__":
    main()
