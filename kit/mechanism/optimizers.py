"""Optimisers: given each parameter's gradient, how far to move it.

They hold parameters as PyTorch's do, in `param_groups` with settings of their own (a learning rate by depth, no weight
decay for some) and read each parameter's `grad`. The arithmetic is done in the order of PyTorch and fastai, so that
every bit agrees where theirs agree: `p.add_(g, alpha=-lr)` rounds once, `p -= lr * g` twice.

    python -m kit.mechanism.optimizers
"""

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kit.mechanism.landscapes import LANDSCAPES, Landscape

Group = dict[str, Any]
State = dict[str, Any]


class Optimizer:
    """What all optimisers share. params: tensors, or lists of them, or groups {"params": tensors, "lr": ...}.

    weight_decay pulls every parameter towards 0. Coupled, it joins the gradient (the L2 penalty weight_decay / 2 * w^2
    in the loss) and so runs through momentum and scaling; decoupled, it shrinks the parameter by lr * weight_decay and
    leaves the gradient alone (Loshchilov and Hutter, 2019). `state[p]` holds what is remembered of each parameter.
    """

    def __init__(
        self, params: Iterable, lr: float, weight_decay: float = 0.0, decoupled: bool = False, **settings: Any
    ):
        if not lr > 0 or not math.isfinite(lr):
            raise ValueError(f"learning rate {lr}: it must be above 0; try 0.1 for SGD, 0.001 for Adam")
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
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, self._decay(p, group), self.state.setdefault(p, {}), group)

    def zero_grad(self) -> None:
        """Set the gradients to 0: backward adds to what is there."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = torch.zeros_like(p.grad)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """Move one parameter in place."""
        raise NotImplementedError

    def _decay(self, p: Tensor, group: Group) -> Tensor:
        """Decay the weight itself, or the gradient that is returned."""
        if not group["weight_decay"]:
            return p.grad
        if group["decoupled"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
            return p.grad
        return p.grad.add(p, alpha=group["weight_decay"])


class SGD(Optimizer):
    """Stochastic gradient descent: p -= lr * g (Robbins and Monro, 1951).

    With momentum m a velocity remembers past gradients: v = m v + g, p -= lr * v (Polyak, 1964): small steps that
    agree add up, steps that contradict each other cancel. Nesterov (1983) looks ahead: p -= lr * (g + m v).
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.0, nesterov: bool = False, **settings: Any):
        super().__init__(params, lr, momentum=_share("momentum", momentum), nesterov=nesterov, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """In place."""
        if group["momentum"]:
            velocity = state.setdefault("velocity", torch.zeros_like(p))
            velocity.mul_(group["momentum"]).add_(grad)
            grad = grad.add(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
        p.add_(grad, alpha=-group["lr"])


class AdaGrad(Optimizer):
    """A rate for each element: h += g^2, p -= lr * g / sqrt(h) (Duchi et al., 2011).

    What has moved much moves less from then on. h only grows, so every element comes to a halt at last.
    """

    def __init__(self, params: Iterable, lr: float, eps: float = 1e-10, **settings: Any):
        super().__init__(params, lr, eps=eps, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """In place."""
        squares = state.setdefault("squares", torch.zeros_like(p))
        squares.addcmul_(grad, grad)
        p.addcdiv_(grad, squares.sqrt().add_(group["eps"]), value=-group["lr"])


class RMSprop(Optimizer):
    """AdaGrad that forgets: h = alpha h + (1 - alpha) g^2 (Tieleman and Hinton, 2012), so it never comes to a halt."""

    def __init__(self, params: Iterable, lr: float, alpha: float = 0.99, eps: float = 1e-8, **settings: Any):
        super().__init__(params, lr, alpha=_share("alpha", alpha), eps=eps, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """In place."""
        squares = state.setdefault("squares", torch.zeros_like(p))
        squares.mul_(group["alpha"]).addcmul_(grad, grad, value=1 - group["alpha"])
        p.addcdiv_(grad, squares.sqrt().add_(group["eps"]), value=-group["lr"])


class Adam(Optimizer):
    """Momentum and RMSprop together (Kingma and Ba, 2015): p -= lr * mean / sqrt(squares), of averages made unbiased.

    Both averages begin at 0 and would be too small at first. After n steps their weights sum to 1 - beta^n: they are
    divided by it. Defaults and order of arithmetic are fastai's; PyTorch's own rounds elsewhere.
    """

    def __init__(
        self, params: Iterable, lr: float, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-5, **settings: Any
    ):
        super().__init__(params, lr, betas=tuple(_share("beta", beta) for beta in betas), eps=eps, **settings)

    def update(self, p: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """In place."""
        (beta1, beta2), step = group["betas"], state.get("step", 0) + 1
        mean = state.setdefault("mean", torch.zeros_like(p))
        squares = state.setdefault("squares", torch.zeros_like(p))
        mean.mul_(beta1).add_(grad, alpha=1 - beta1)
        squares.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (squares / _weights_so_far(beta2, step)).sqrt() + group["eps"]
        p.addcdiv_(mean, denominator, value=-group["lr"] / _weights_so_far(beta1, step))
        state["step"] = step


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0.01, **settings: Any):
        super().__init__(params, lr, weight_decay=weight_decay, decoupled=True, **settings)


def _weights_so_far(beta: float, step: int) -> float:
    """(1 - beta) (1 + beta + ... + beta^(step - 1)): a geometric series, summed as such."""
    return (1 - beta) * (1 - beta**step) / (1 - beta)


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} {value}: it is the share of the past that is kept, from 0 to below 1")
    return value


def momentum_of(group: Group) -> float:
    """The share of past gradients that a group keeps: SGD's momentum, or Adam's first beta."""
    return group["betas"][0] if "betas" in group else group["momentum"]


def set_momentum(group: Group, value: float) -> None:
    """Set what `momentum_of` reads."""
    if "betas" in group:
        group["betas"] = (value, group["betas"][1])
    else:
        group["momentum"] = value


ON_THE_VALLEY: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "SGD": lambda params: SGD(params, lr=0.95),
    "momentum": lambda params: SGD(params, lr=0.1, momentum=0.9),
    "Nesterov": lambda params: SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "AdaGrad": lambda params: AdaGrad(params, lr=1.5),
    "RMSprop": lambda params: RMSprop(params, lr=0.3, alpha=0.9),
    "Adam": lambda params: Adam(params, lr=0.3),
    "AdamW": lambda params: AdamW(params, lr=0.3),
}


def walk(make: Callable[[list[Tensor]], Optimizer], landscape: Landscape, steps: int) -> Tensor:
    """The path (steps + 1, 2) of an optimiser down a landscape, from its start."""
    point = torch.tensor(landscape.start, dtype=torch.float64)
    optimizer, path = make([point]), [point.clone()]
    for _ in range(steps):
        point.grad = landscape.gradient(point)
        optimizer.step()
        path.append(point.clone())
    return torch.stack(path)


def main() -> None:
    """All of them from (-7, 2) down the stretched valley x^2 / 20 + y^2, thirty steps each; --out draws the paths."""
    parser = argparse.ArgumentParser(description="the paths of all optimisers down the stretched valley")
    parser.add_argument("--out", type=Path, help="a folder for the picture")
    out, valley = parser.parse_args().out, LANDSCAPES["stretched valley"]
    walks = {name: walk(make, valley, 30) for name, make in ON_THE_VALLEY.items()}
    for name, path in walks.items():
        print(f"{name:<9} ends at ({path[-1, 0]:6.2f}, {path[-1, 1]:6.2f}), height {valley.function(path[-1]):.4f}")
    if out:
        from kit.mechanism.plots import paths

        paths(valley.function, walks, (-8, 4, -3, 3)).savefig(out / "optimizers.png", dpi=120)
        print(out / "optimizers.png")


if __name__ == "__main__":
    main()
