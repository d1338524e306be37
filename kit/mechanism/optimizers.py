"""Optimizers: update each parameter from its gradient (SGD with momentum, AdaGrad, RMSprop, Adam, AdamW).

The interface is PyTorch's: `param_groups` hold parameters and their settings (a learning rate by depth, no weight
decay for some), and each parameter's `grad` is read. Operations are in the order of PyTorch and fastai, so results are
equal bit for bit: `p.add_(g, alpha=-lr)` rounds once, `p -= lr * g` twice.
Run `python -m kit.mechanism.optimizers` to compare them on one landscape.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kit.mechanism.landscapes import LANDSCAPES, Landscape

Group = dict[str, Any]
State = dict[str, Any]


class Optimizer:
    """Base class of all optimizers.

    params: tensors, or lists of tensors, or groups {"params": tensors, "lr": ...}; each list or group has its settings.
    weight_decay: coupled, it is added to the gradient (the L2 penalty weight_decay / 2 * w^2 in the loss); decoupled,
    the parameter is multiplied by 1 - lr * weight_decay and the gradient stays as it is (Loshchilov and Hutter,
    Decoupled weight decay regularization, 2019). `state[p]` holds the running averages of a parameter.
    """

    def __init__(
        self, params: Iterable, lr: float, weight_decay: float = 0.0, decoupled: bool = False, **settings: Any
    ):
        if not lr > 0 or not math.isfinite(lr):
            raise ValueError(f"learning rate {lr}: expected a positive number; try 0.1 for SGD, 0.001 for Adam")
        params = list(params)
        if not params:
            raise ValueError("no parameters to optimise; pass network.parameters()")
        settings |= {"lr": lr, "weight_decay": weight_decay, "decoupled": decoupled}
        lists = params if isinstance(params[0], list | tuple | dict) else [params]
        groups = [group if isinstance(group, dict) else {"params": list(group)} for group in lists]
        self.param_groups: list[Group] = [settings | group for group in groups]
        self.state: dict[Tensor, State] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, self._decay(p, group), self.state.setdefault(p, {}), group)

    def zero_grad(self) -> None:
        """Set all gradients to 0, because `backward` adds to them."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = torch.zeros_like(p.grad)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """Update one parameter in place; each optimizer implements this."""
        raise NotImplementedError

    def _decay(self, p: Tensor, group: Group) -> Tensor:
        if not group["weight_decay"]:
            return p.grad
        if group["decoupled"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
            return p.grad
        return p.grad.add(p, alpha=group["weight_decay"])


class SGD(Optimizer):
    """Stochastic gradient descent: p -= lr * g (Robbins and Monro, 1951).

    With momentum m: v = m v + g, p -= lr * v (Polyak, 1964). Gradients that agree over several steps add up,
    gradients that alternate in sign cancel. With Nesterov momentum (1983): p -= lr * (g + m v).
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.0, nesterov: bool = False, **settings: Any):
        super().__init__(params, lr, momentum=_check_decay("momentum", momentum), nesterov=nesterov, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        if group["momentum"]:
            velocity = state.setdefault("velocity", torch.zeros_like(p))
            velocity.mul_(group["momentum"]).add_(grad)
            grad = grad.add(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
        p.add_(grad, alpha=-group["lr"])


class AdaGrad(Optimizer):
    """Adaptive learning rate for each element: h += g^2, p -= lr * g / sqrt(h) (Duchi et al., 2011).

    Elements with large past gradients get smaller steps. h never decreases, so the steps shrink towards 0.
    """

    def __init__(self, params: Iterable, lr: float, eps: float = 1e-10, **settings: Any):
        super().__init__(params, lr, eps=eps, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        squares = state.setdefault("squares", torch.zeros_like(p))
        squares.addcmul_(grad, grad)
        p.addcdiv_(grad, squares.sqrt().add_(group["eps"]), value=-group["lr"])


class RMSprop(Optimizer):
    """AdaGrad with a moving average, h = alpha h + (1 - alpha) g^2, so the steps do not shrink towards 0.

    Source: Tieleman and Hinton, Lecture 6.5, 2012.
    """

    def __init__(self, params: Iterable, lr: float, alpha: float = 0.99, eps: float = 1e-8, **settings: Any):
        super().__init__(params, lr, alpha=_check_decay("alpha", alpha), eps=eps, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        squares = state.setdefault("squares", torch.zeros_like(p))
        squares.mul_(group["alpha"]).addcmul_(grad, grad, value=1 - group["alpha"])
        p.addcdiv_(grad, squares.sqrt().add_(group["eps"]), value=-group["lr"])


class Adam(Optimizer):
    """Momentum and RMSprop combined: p -= lr * mean / (sqrt(squares) + eps) (Kingma and Ba, 2015).

    Both moving averages start at 0 and are too small at first. After n steps the weights in an average sum to
    1 - beta^n; dividing by this sum corrects the bias. Defaults and order of operations are fastai's; PyTorch rounds
    at other places.
    """

    def __init__(
        self, params: Iterable, lr: float, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-5, **settings: Any
    ):
        super().__init__(params, lr, betas=tuple(_check_decay("beta", beta) for beta in betas), eps=eps, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        (beta1, beta2), step = group["betas"], state.get("step", 0) + 1
        mean = state.setdefault("mean", torch.zeros_like(p))
        squares = state.setdefault("squares", torch.zeros_like(p))
        mean.mul_(beta1).add_(grad, alpha=1 - beta1)
        squares.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (squares / self.bias_correction(beta2, step)).sqrt() + group["eps"]
        p.addcdiv_(mean, denominator, value=-group["lr"] / self.bias_correction(beta1, step))
        state["step"] = step

    def bias_correction(self, beta: float, step: int) -> float:
        """1 - beta^step, in fastai's order of operations, which rounds differently."""
        return (1 - beta) * (1 - beta**step) / (1 - beta)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0.01, **settings: Any):
        super().__init__(params, lr, weight_decay=weight_decay, decoupled=True, **settings)


def _check_decay(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} {value}: expected the weight of past values, from 0 to below 1")
    return value


def get_momentum(group: Group) -> float:
    """Return the momentum of a group: `momentum` of SGD, or the first of Adam's `betas`."""
    return group["betas"][0] if "betas" in group else group["momentum"]


def set_momentum(group: Group, value: float) -> None:
    """Set the momentum of a group: `momentum` of SGD, or the first of Adam's `betas`."""
    if "betas" in group:
        group["betas"] = (value, group["betas"][1])
    else:
        group["momentum"] = value


EXAMPLES: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "SGD": lambda params: SGD(params, lr=0.95),
    "momentum": lambda params: SGD(params, lr=0.1, momentum=0.9),
    "Nesterov": lambda params: SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "AdaGrad": lambda params: AdaGrad(params, lr=1.5),
    "RMSprop": lambda params: RMSprop(params, lr=0.3, alpha=0.9),
    "Adam": lambda params: Adam(params, lr=0.3),
    "AdamW": lambda params: AdamW(params, lr=0.3),
}


def optimize(make: Callable[[list[Tensor]], Optimizer], landscape: Landscape, steps: int) -> Tensor:
    """Minimise a landscape from its start; return the path (steps + 1, 2)."""
    point = torch.tensor(landscape.start, dtype=torch.float64)
    optimizer, path = make([point]), [point.clone()]
    for _ in range(steps):
        point.grad = landscape.gradient(point)
        optimizer.step()
        path.append(point.clone())
    return torch.stack(path)


def main() -> None:
    """Print where 30 steps of each optimizer end on the stretched valley x^2 / 20 + y^2."""
    valley = LANDSCAPES["stretched valley"]
    for name, make in EXAMPLES.items():
        end = optimize(make, valley, 30)[-1]
        print(f"{name:<9} ends at ({end[0]:6.2f}, {end[1]:6.2f}), value {valley.function(end):.4f}")


if __name__ == "__main__":
    main()
