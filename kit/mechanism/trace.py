"""The trace: every step of a training written down, and the first place where two trainings part.

`Trace` records a step as named values: the batch, the rates, the loss, every gradient, every parameter after the step,
every running statistic, every number that the optimiser remembers. Two runs that should be the same are compared by
`first_difference`, which says at which step, in which tensor, at which element they stop being equal in every bit.

    python -m kit.mechanism.trace
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kit.mechanism.loop import Callback, Learner
from kit.mechanism.optimizers import momentum_of

Step = dict[str, Any]


def snapshot(
    x: Tensor, y: Tensor, loss: Tensor, rates: Mapping[str, float], model: Any, state: Callable[[Tensor], Mapping]
) -> Step:
    """One step as named values, in the order in which they come about: a later one follows from those before.

    rates: learning rates and momenta by name. state: from a parameter to what its optimiser remembers of it, called
    after the step. Nothing of it is shared with the model: tensors are cloned.
    """
    step: Step = {"batch x": x, "batch y": y} | {f"{name}": value for name, value in rates.items()}
    step["loss"] = loss
    named = named_parameters(model)
    step |= {f"gradient of {name}": p.grad for name, p in named.items() if p.grad is not None}
    step |= {f"statistic {name}": buffer for name, buffer in named_buffers(model).items()}
    step |= {f"{key} of {name}": value for name, p in named.items() for key, value in sorted(state(p).items())}
    step |= {f"parameter {name}": p for name, p in named.items()}
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in step.items()}


def named_parameters(model: Any) -> dict[str, Tensor]:
    """Parameters by name, of a torch module or a network of our own layers."""
    if hasattr(model, "named_parameters"):
        return dict(model.named_parameters())
    return {f"{i}.{name}": getattr(layer, name) for i, layer in enumerate(model.modules()) for name in layer.names}


def named_buffers(model: Any) -> dict[str, Tensor]:
    """Running statistics by name."""
    if hasattr(model, "named_buffers"):
        return dict(model.named_buffers())
    names = ("running_mean", "running_var")
    return {
        f"{i}.{n}": getattr(layer, n) for i, layer in enumerate(model.modules()) for n in names if hasattr(layer, n)
    }


def digest(step: Step) -> Step:
    """The step with a SHA-256 in place of each tensor: small enough to keep for large networks."""
    return {name: _sha256(value) if isinstance(value, Tensor) else value for name, value in step.items()}


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor).numpy()).hexdigest()


class Trace(Callback):
    """Writes every step down in `steps`; `rows()` is the short version, for a table.

    keep: what is kept of each step, such as `digest`; everything by default.
    """

    def __init__(self, keep: Callable[[Step], Step] = lambda step: step):
        self.keep, self.steps, self.before = keep, [], {}
        self.short: list[dict[str, Any]] = []

    def before_step(self, learner: Learner) -> None:
        """Remember the parameters, to tell how far they move."""
        self.before = {name: p.detach().clone() for name, p in named_parameters(learner.model).items()}

    def after_step(self, learner: Learner) -> None:
        """Write the step down."""
        optimizer = learner.optimizer
        rates = {f"rate of group {i}": group["lr"] for i, group in enumerate(optimizer.param_groups)}
        if {"momentum", "betas"} & set(optimizer.param_groups[0]):
            rates["momentum"] = momentum_of(optimizer.param_groups[0])
        step = snapshot(learner.x, learner.y, learner.loss, rates, learner.model, lambda p: optimizer.state.get(p, {}))
        self.short.append(self._row(step, learner.model))
        self.steps.append(self.keep(step))

    def _row(self, step: Step, model: Any) -> dict[str, Any]:
        row = {"step": len(self.steps), "batch": _sha256(step["batch x"])[:8], "loss": float(step["loss"])}
        for name, p in named_parameters(model).items():
            if p.grad is not None:
                row[f"gradient {name}"] = p.grad.norm().item()
                row[f"update {name}"] = (p.detach() - self.before[name]).norm().item()
        return row

    def rows(self) -> list[dict[str, Any]]:
        """A row a step: step, batch (a short hash), loss, and for each parameter the norms of gradient and update."""
        return self.short


@dataclass(frozen=True)
class Difference:
    """Where two runs part: the step (from 0), the value's name, the element's index, and both values there."""

    step: int
    name: str
    index: tuple[int, ...]
    first: Any
    second: Any

    def __str__(self) -> str:
        at = f" at {list(self.index)}" if self.index else ""
        return f"step {self.step}: {self.name}{at} is {self.first} in the first run and {self.second} in the second"


def first_difference(first: list[Step], second: list[Step]) -> Difference | None:
    """The first place where two traces are not equal in every bit; None where they are the same throughout."""
    for number, (a, b) in enumerate(zip(first, second, strict=False)):
        more, fewer = (a, b) if len(a) >= len(b) else (b, a)
        for name in [*more, *(name for name in fewer if name not in more)]:
            if name not in a or name not in b:
                there, missing = "there", "missing"
                return Difference(number, name, (), *(there, missing) if name in a else (missing, there))
            if not _same(a[name], b[name]):
                return _locate(number, name, a[name], b[name])
    if len(first) != len(second):
        return Difference(min(len(first), len(second)), "number of steps", (), len(first), len(second))
    return None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bytes(a), _bytes(b))
    return type(a) is type(b) and a == b


def _bytes(tensor: Tensor) -> Tensor:
    """The tensor's memory as uint8: minus zero and zero differ here, and NaN equals itself."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _locate(step: int, name: str, a: Any, b: Any) -> Difference:
    """The first element that differs, or the shapes or digests where there is none to show."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return Difference(step, name, (), a, b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(step, name, (), f"{a.dtype} {tuple(a.shape)}", f"{b.dtype} {tuple(b.shape)}")
    place = (_bytes(a) != _bytes(b)).nonzero()[0].item() // a.element_size()
    index = tuple(i.item() for i in torch.unravel_index(torch.tensor(place), a.shape)) if a.ndim else ()
    return Difference(step, name, index, a.flatten()[place].item(), b.flatten()[place].item())


def main() -> None:
    """Two runs of one network, the second with the gradient never set to zero: where do they part?"""
    from kit.mechanism.batches import DataLoader, Dataset
    from kit.mechanism.layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy
    from kit.mechanism.loop import by_hand
    from kit.mechanism.optimizers import SGD

    def run(forget: bool) -> list[Step]:
        torch.manual_seed(0)
        network, trace = Sequential(Linear(4, 3), ReLU(), Linear(3, 2)), Trace()
        batches = DataLoader(Dataset(torch.randn(8, 4), torch.randint(0, 2, (8,))), 4)
        optimizer = SGD(network.parameters(), lr=0.1)
        if forget:
            optimizer.zero_grad = lambda: None
        Learner(network, batches, batches, SoftmaxCrossEntropy(), optimizer, by_hand).fit(2, [trace])
        return trace.steps

    print(first_difference(run(False), run(False)) or "two equal runs: no difference")
    print(first_difference(run(False), run(True)))


if __name__ == "__main__":
    main()
