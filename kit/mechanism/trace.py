"""Trace: record every step of a training, and find the first value in which two trainings differ.

`Trace` records for each step the batch, the learning rates, the loss, all gradients, the parameters after the step, the
running statistics and the state of the optimizer. `first_difference` compares two such records bit for bit and reports
step, tensor and element of the first difference. Run `python -m kit.mechanism.trace` for an example.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kit.mechanism.loop import Callback, Learner
from kit.mechanism.optimizers import get_momentum

Step = dict[str, Any]


def snapshot(
    x: Tensor, y: Tensor, loss: Tensor, settings: Mapping[str, float], model: Any, state: Callable[[Tensor], Mapping]
) -> Step:
    """Return all values of one step by name, in the order of computation; tensors are copied.

    settings: learning rates and momentum by name. state: a function from a parameter to its optimizer state. Call it
    after the step. The order matters: a difference in one value causes differences in later ones.
    """
    named = dict(model.named_parameters())
    step: Step = {"batch x": x, "batch y": y, **settings, "loss": loss}
    step |= {f"gradient of {name}": p.grad for name, p in named.items() if p.grad is not None}
    step |= {f"statistic {name}": buffer for name, buffer in model.named_buffers()}
    step |= {f"{key} of {name}": value for name, p in named.items() for key, value in sorted(state(p).items())}
    step |= {f"parameter {name}": p for name, p in named.items()}
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in step.items()}


def digest(step: Step) -> Step:
    """Return the step with the SHA-256 of each tensor instead of the tensor, to save memory for large networks."""
    return {name: _sha256(value) if isinstance(value, Tensor) else value for name, value in step.items()}


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor).cpu().numpy()).hexdigest()


class Trace(Callback):
    """Record every step in `steps`, and a short version of it in `rows` for a table.

    keep: a function applied to each step before it is stored, such as `digest`. A row has step, batch (a short hash),
    loss, and the norms of gradient and update of each parameter.
    """

    def __init__(self, keep: Callable[[Step], Step] = lambda step: step):
        self.keep, self.steps = keep, []
        self.rows: list[dict[str, Any]] = []

    def before_step(self, learner: Learner) -> None:
        self.before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}

    def after_step(self, learner: Learner) -> None:
        optimizer = learner.optimizer
        settings = {f"lr of group {i}": group["lr"] for i, group in enumerate(optimizer.param_groups)}
        if {"momentum", "betas"} & set(optimizer.param_groups[0]):
            settings["momentum"] = get_momentum(optimizer.param_groups[0])
        state = lambda p: optimizer.state.get(p, {})  # noqa: E731
        step = snapshot(learner.x, learner.y, learner.loss, settings, learner.model, state)
        row = {"step": len(self.steps), "batch": _sha256(step["batch x"])[:8], "loss": float(step["loss"])}
        for name, p in learner.model.named_parameters():
            if p.grad is not None:
                row[f"gradient {name}"] = p.grad.norm().item()
                row[f"update {name}"] = (p.detach() - self.before[name]).norm().item()
        self.rows.append(row)
        self.steps.append(self.keep(step))


@dataclass(frozen=True)
class Difference:
    """The first difference of two runs: step (from 0), name of the value, index of the element, and both values."""

    step: int
    name: str
    index: tuple[int, ...]
    first: Any
    second: Any

    def __str__(self) -> str:
        at = f" at {list(self.index)}" if self.index else ""
        return f"step {self.step}: {self.name}{at} is {self.first} in the first run and {self.second} in the second"


def first_difference(first: list[Step], second: list[Step]) -> Difference | None:
    """Return the first value in which two traces are not equal bit for bit, or None if they are equal."""
    for number, (a, b) in enumerate(zip(first, second, strict=False)):
        for name in a | b if len(a) >= len(b) else b | a:
            if name not in a or name not in b:
                return Difference(number, name, (), *("present" if name in step else "missing" for step in (a, b)))
            if not _equal(a[name], b[name]):
                return _locate(number, name, a[name], b[name])
    if len(first) != len(second):
        return Difference(min(len(first), len(second)), "number of steps", (), len(first), len(second))
    return None


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bytes(a), _bytes(b))
    return type(a) is type(b) and a == b


def _bytes(tensor: Tensor) -> Tensor:
    """The tensor's memory as uint8, in which 0 and -0 differ and NaN equals itself."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _locate(step: int, name: str, a: Any, b: Any) -> Difference:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return Difference(step, name, (), a, b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(step, name, (), f"{a.dtype} {tuple(a.shape)}", f"{b.dtype} {tuple(b.shape)}")
    place = (_bytes(a) != _bytes(b)).nonzero()[0].item() // a.element_size()
    index = tuple(i.item() for i in torch.unravel_index(torch.tensor(place), a.shape)) if a.ndim else ()
    return Difference(step, name, index, a.flatten()[place].item(), b.flatten()[place].item())


def main() -> None:
    """Compare two equal runs, then a run whose gradients are never set to zero."""
    from kit.mechanism.batches import DataLoader, Dataset
    from kit.mechanism.layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy
    from kit.mechanism.loop import backward_by_hand
    from kit.mechanism.optimizers import SGD

    def run(zero_grad: bool) -> list[Step]:
        torch.manual_seed(0)
        network, trace = Sequential(Linear(4, 3), ReLU(), Linear(3, 2)), Trace()
        batches = DataLoader(Dataset(torch.randn(8, 4), torch.randint(0, 2, (8,))), 4)
        optimizer = SGD(network.parameters(), lr=0.1)
        if not zero_grad:
            optimizer.zero_grad = lambda: None
        Learner(network, batches, batches, SoftmaxCrossEntropy(), optimizer, backward_by_hand).fit(2, [trace])
        return trace.steps

    print("two equal runs:", first_difference(run(zero_grad=True), run(zero_grad=True)))
    print("zero_grad left out:", first_difference(run(zero_grad=True), run(zero_grad=False)))


if __name__ == "__main__":
    main()
