"""The arithmetic of training: bf16, fp16 or fp32, and the memory layout, chosen from facts about the device.

choose_precision("auto", torch.device("cpu"), {"amx_bf16": True}).name     # 'bf16'

Nothing is timed to choose: the same machine always chooses alike, and a run can be repeated in every bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fastai.vision.all import Callback, CancelStepException
from torch import nn

from kit.errors import RecipeError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BF16 = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Precision:
    """What training computes in: "fp32", "bf16" or "fp16"; whether channels come last in memory; and why."""

    name: str
    channels_last: bool
    reason: str


def choose_precision(asked: str, device: torch.device, facts: Mapping[str, Any]) -> Precision:
    """The precision for a device. facts: for a CPU its features by name, for a GPU {"capability": (major, minor)}.

    "auto" takes bf16 where the processor multiplies matrices in it (AMX, AVX-512-BF16) or the GPU is of compute
    capability 8.0 or more; fp16 with loss scaling on GPUs from 7.0; else fp32. Raises `RecipeError` for what the
    device cannot do.
    """
    if device.type == "cpu":
        return _for_cpu(asked, facts)
    if device.type == "cuda":
        return _for_gpu(asked, facts["capability"])
    if asked in DTYPES:
        raise RecipeError(f"precision {asked} is not used on {device.type}", fix="precision auto or fp32")
    return Precision("fp32", False, f"fp32 on {device.type}")


def _for_cpu(asked: str, facts: Mapping[str, Any]) -> Precision:
    if asked == "fp16":
        raise RecipeError("precision fp16 is for GPUs", fix="precision auto, bf16 or fp32")
    has = [name for name in CPU_BF16 if facts.get(name)]
    if asked == "bf16" or (asked == "auto" and has):
        return Precision(
            "bf16", True, f"the processor has {has[0]}" if has else "as asked; this processor is slow at it"
        )
    return Precision(
        "fp32", True, "as asked" if asked == "fp32" else f"the processor has none of {', '.join(CPU_BF16)}"
    )


def _for_gpu(asked: str, capability: tuple[int, int]) -> Precision:
    version = ".".join(map(str, capability))
    if asked == "bf16" and capability < (8, 0):
        problem = f"this GPU (compute capability {version}) has no bf16"
        raise RecipeError(problem, fix="precision auto or fp16")
    if asked != "auto":
        return Precision(asked, True, "as asked")
    name = "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return Precision(name, True, f"the GPU has compute capability {version}")


def device_facts(device: torch.device) -> dict[str, Any]:
    """What `choose_precision` asks about a device, from the device itself."""
    if device.type == "cuda":
        return {"capability": torch.cuda.get_device_capability(device)}
    return torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}


class MixedPrecision(Callback):
    """Train in a `Precision`, on any device: autocast around predictions and loss, loss scaling for fp16.

    fastai's callback of that name asks for CUDA's autocast and so does nothing on a CPU. Validation and everything
    after `fit` compute in fp32, and the weights are fp32 throughout.
    """

    order = 10

    def __init__(self, precision: Precision):
        super().__init__()
        self.precision = precision

    def before_fit(self) -> None:
        """Lay the weights out in memory, and start the loss scaler where fp16 needs one."""
        if self.precision.channels_last:
            set_layout(self.learn.model, torch.channels_last)
        self.scaler = torch.amp.GradScaler(self.dls.device.type, enabled=self.precision.name == "fp16")
        self.autocast = None

    def before_batch(self) -> None:
        """Enter autocast for a training batch."""
        if self.precision.channels_last:
            self.learn.xb = tuple(
                x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in self.xb
            )
        if self.training and self.precision.name in DTYPES:
            self.autocast = torch.autocast(self.dls.device.type, DTYPES[self.precision.name])
            self.autocast.__enter__()

    def after_pred(self) -> None:
        """The loss is computed in fp32; autocast ends with the network."""
        self._leave()
        self.learn.pred = self.pred.float()

    def _leave(self) -> None:
        if self.autocast is not None:
            self.autocast.__exit__(None, None, None)
            self.autocast = None

    def before_backward(self) -> None:
        """Scale the loss, so that small gradients survive fp16."""
        self.learn.loss_grad = self.scaler.scale(self.loss_grad)

    def before_step(self) -> None:
        """Unscale; where a gradient overflowed, skip the step."""
        if not self.scaler.is_enabled():
            return
        self.skipped = True
        self.scaler.step(self)
        self.scaler.update()
        if self.skipped:
            raise CancelStepException

    @property
    def param_groups(self) -> list:
        """What the loss scaler looks at in an optimiser."""
        return self.opt.param_groups

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Called by the loss scaler where all gradients are finite."""
        self.skipped = False

    def after_cancel_batch(self) -> None:
        """Leave autocast when another callback cut the batch short."""
        self._leave()

    def after_fit(self) -> None:
        """Leave nothing behind."""
        self._leave()
        set_layout(self.learn.model, torch.contiguous_format)


def set_layout(model: nn.Module, layout: torch.memory_format) -> None:
    """Lay a model's 4-dimensional weights out in memory; their values stay."""
    model.to(memory_format=layout)
