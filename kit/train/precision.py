"""Precision of training, bf16, fp16 or fp32, and memory layout, chosen from the properties of the device.

choose_precision("auto", torch.device("cpu"), {"amx_bf16": True}).name     # 'bf16'

The choice does not measure times: the same machine always chooses the same, and runs can be repeated exactly.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fastai.vision.all import Callback, CancelStepException, Learner
from torch import Tensor, nn

from kit.errors import RecipeError, TrainingError, first_line
from kit.recipe import Recipe

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BF16 = ("amx_bf16", "avx512_bf16")
# In smaller images feature maps shrink to one pixel, where oneDNN's bf16 gradient of a 3 x 3 convolution with stride 2
# reads uninitialised memory (torch 2.15, 2026-11; fp32 and larger maps are correct).
MIN_BF16_SIZE = 32


@dataclass(frozen=True)
class Precision:
    """name: "fp32", "bf16" or "fp16"; whether memory layout is channels-last; and the reason for the choice."""

    name: str
    channels_last: bool
    reason: str


def choose_precision(asked: str, device: torch.device, facts: Mapping[str, Any]) -> Precision:
    """The precision for a device. facts: for a CPU its features by name, for a GPU {"capability": (major, minor)}.

    "auto" is bf16 on CPUs with AMX or AVX-512-BF16 and on GPUs of compute capability 8.0 or more, fp16 with loss
    scaling on GPUs from 7.0, else fp32. Raises `RecipeError` for a precision that the device does not support.
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
            "bf16", True, f"the processor has {has[0]}" if has else "as requested; this processor is slow at it"
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
    """The `facts` of `choose_precision` for a device."""
    if device.type == "cuda":
        return {"capability": torch.cuda.get_device_capability(device)}
    return torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}


def precision_for(learn: Learner, recipe: Recipe) -> Precision:
    """The precision for a recipe on the learner's device, for images of the recipe's size."""
    device = torch.device(learn.dls.device)
    chosen = choose_precision(recipe.precision, device, device_facts(device))
    if device.type != "cpu" or chosen.name != "bf16" or recipe.input_size >= MIN_BF16_SIZE:
        return chosen
    wrong = f"on CPUs, bf16 gradients of images under {MIN_BF16_SIZE} pixels a side can be wrong"
    if recipe.precision == "bf16":
        raise RecipeError(f"{wrong}, and size is {recipe.input_size}", fix="precision auto or fp32, or a larger size")
    return Precision("fp32", True, wrong)


@contextmanager
def training_in(learn: Learner, precision: Precision, compiled: bool = False) -> Iterator[list[Callback]]:
    """The callbacks with which `fit` trains `learn` in `precision`; the model's memory layout is changed inside.

    compiled: training batches run through `torch.compile`; `TrainingError` where the network cannot be compiled. On
    exit, also after an error, everything but the weights is restored.
    """
    from torch._dynamo.exc import TorchDynamoException

    model, layout = learn.model, torch.channels_last if precision.channels_last else torch.contiguous_format
    mixed = MixedForward(torch.device(learn.dls.device), DTYPES.get(precision.name), layout)
    callbacks = [mixed, *([LossScaling(mixed.device)] if precision.name == "fp16" else [])]
    model.to(memory_format=layout)
    try:
        yield [*callbacks, *([Compiled(model)] if compiled else [])]
    except TorchDynamoException as error:
        problem = f"the network cannot be compiled on this machine ({first_line(error)})"
        raise TrainingError(problem, fix="leave out --compile, or install what it asks for") from error
    finally:
        mixed.leave()
        learn.model = model
        model.to(memory_format=torch.contiguous_format)


class MixedForward(Callback):
    """Runs the forward pass of training batches under autocast; loss, weights and validation stay in fp32.

    (fastai's `MixedPrecision` always uses CUDA's autocast and so has no effect on a CPU.) dtype: None for fp32. layout:
    memory layout of the images, the same as that of the model's weights.
    """

    order = 96  # after everything that changes images

    def __init__(self, device: torch.device, dtype: torch.dtype | None, layout: torch.memory_format):
        super().__init__()
        self.device, self.layout, self.entered = device, layout, False
        self.autocast = torch.autocast(device.type, dtype) if dtype else None

    def before_batch(self) -> None:
        """Set the memory layout of the images, and enter autocast."""
        self.learn.xb = tuple(x.contiguous(memory_format=self.layout) if x.ndim == 4 else x for x in self.xb)
        if self.training and self.autocast:
            self.autocast.__enter__()
            self.entered = True

    def after_pred(self) -> None:
        """Leave autocast before the loss."""
        if self.entered:
            self.leave()
            self.learn.pred = self.pred.float()

    def leave(self) -> None:
        """Leave autocast, also after an error in the forward pass."""
        if self.entered:
            self.autocast.__exit__(None, None, None)
            self.entered = False


class Compiled(Callback):
    """Runs training batches through `torch.compile`, validation through the model itself."""

    order = 97  # after MixedForward

    def __init__(self, model: nn.Module):
        super().__init__()
        self.plain, self.compiled = model, torch.compile(model)

    def before_batch(self) -> None:
        """Switch models; the compiler needs plain tensors instead of fastai's subclasses."""
        self.learn.model = self.compiled if self.training else self.plain
        if self.training:
            self.learn.xb = tuple(x.as_subclass(Tensor) for x in self.xb)

    def after_pred(self) -> None:
        """Switch back, so that callbacks read and save the model itself."""
        self.learn.model = self.plain


class LossScaling(Callback):
    """Scales the loss so that small gradients do not underflow in fp16; skips steps whose gradients overflow."""

    order = 10
    checkpointed = ("scaler",)

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def before_fit(self) -> None:
        """Create a scaler for this fit."""
        self.scaler = torch.amp.GradScaler(self.device.type)

    def before_backward(self) -> None:
        self.learn.loss_grad = self.scaler.scale(self.loss_grad)

    def before_step(self) -> None:
        """Unscale the gradients; the scaler calls `step` unless one is not finite."""
        self.skipped = True
        self.scaler.step(self)
        self.scaler.update()
        if self.skipped:
            raise CancelStepException

    @property
    def param_groups(self) -> list:
        """The part of an optimiser that the scaler reads."""
        return self.opt.param_groups

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Called by the scaler where all gradients are finite; fastai then takes the step itself."""
        self.skipped = False
