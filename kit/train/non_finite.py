"""A training whose numbers are no longer finite stops within the step, before they reach the weights.

fit(..., cbs=[StopAtNonFinite(history, rate=2e-3)])
"""

import math

import torch
from fastai.vision.all import Callback
from torch.nn.utils import get_total_norm

from kit.errors import TrainingError
from kit.train.history import History


class NotFinite(BaseException):
    """Stops training at once. No `Exception`: fastai would rewrite its text. `error` is what people are told."""

    def __init__(self, error: TrainingError):
        super().__init__(str(error))
        self.error = error


class StopAtNonFinite(Callback):
    """Looks at every loss and batch norm's statistics before the gradient is taken, and at it before the step is.

    The weights stay what they were before the bad step; batch norm's statistics too, which a forward pass changes.
    Costs reading each gradient once: 0.3 % of a resnet18's step on a CPU.
    """

    order = 15  # gradients as the step would use them: accumulated, unscaled (fp16), clipped

    def __init__(self, history: History, rate: float):
        super().__init__()
        self.history, self.highest_rate = history, rate

    def before_batch(self) -> None:
        """Keep batch norm's statistics."""
        if self.training:
            self.statistics = [buffer.clone() for buffer in self.model.buffers()]

    def after_loss(self) -> None:
        """Stop where the loss is not finite, or what batch norm keeps: an infinite variance divides all to a fine 0."""
        loss = self.learn.loss.detach().mean().float()
        if not self.training:
            return self._check("validation loss", float(loss))
        kept = [buffer for buffer in self.model.buffers() if buffer.is_floating_point() and buffer.numel()]
        largest = torch.stack(torch._foreach_norm(kept, float("inf"))).max() if kept else torch.zeros_like(loss)
        loss, largest = torch.stack([loss, largest.float()]).tolist()  # one wait for a GPU, not two
        self._check("loss", loss)
        self._check("largest of batch norm's statistics", largest)

    def before_step(self) -> None:
        """Stop where a gradient is not finite."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self._check("gradient's norm", float(get_total_norm(gradients)))

    def _check(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        if self.training:
            with torch.no_grad():
                for buffer, before in zip(self.model.buffers(), self.statistics, strict=True):
                    buffer.copy_(before)
        step, epoch = len(self.history.steps) + self.training, len(self.history.rows) + 1
        where = f"at step {step} (epoch {epoch}, {self.history.phase})"
        rate = self.opt.hypers[-1]["lr"]
        problem = f"the {what} became {value} {where} at the rate {rate:.2g}; training stopped before that step"
        fix = (
            f"a lower rate: --rate {self.highest_rate / 10:.2g} (highest here: {self.highest_rate:.2g}), or --rate auto"
        )
        if step == 1:
            fix = f"no step was taken yet, so look at the images and the loss first, --precision fp32; then {fix}"
        raise NotFinite(TrainingError(problem, fix=fix))
