"""Stop training at the first loss or gradient that is not finite, before it changes the weights.

fit(..., cbs=[StopAtNonFinite(history, rate=2e-3)])
"""

import math

import torch
from fastai.vision.all import Callback
from torch.nn.utils import get_total_norm

from kit.errors import TrainingError
from kit.train.history import History


class NotFinite(BaseException):
    """Ends training at once. Not an `Exception`, because fastai would change its text. error: for the user."""

    def __init__(self, error: TrainingError):
        super().__init__(str(error))
        self.error = error


class StopAtNonFinite(Callback):
    """Checks each loss and the batch-norm statistics before backward, and each gradient before the step.

    Weights and batch-norm statistics keep their values from before the failing step. The cost is reading each gradient
    once: 0.3 % of a step of resnet18 on a CPU.
    """

    order = 15  # after accumulation, unscaling (fp16) and clipping of gradients

    def __init__(self, history: History, rate: float):
        super().__init__()
        self.history, self.highest_rate = history, rate

    def before_batch(self) -> None:
        """Copy the batch-norm statistics, which the forward pass changes."""
        if self.training:
            self.statistics = [buffer.clone() for buffer in self.model.buffers()]

    def after_loss(self) -> None:
        """Stop where the loss or a batch-norm statistic is not finite.

        An infinite variance turns activations to 0, so that the loss alone would not show the failure.
        """
        loss = self.learn.loss.detach().mean().float()
        if not self.training:
            return self._check("validation loss", float(loss))
        statistics = [buffer for buffer in self.model.buffers() if buffer.is_floating_point() and buffer.numel()]
        largest = (
            torch.stack(torch._foreach_norm(statistics, float("inf"))).max() if statistics else torch.zeros_like(loss)
        )
        loss, largest = torch.stack([loss, largest.float()]).tolist()  # one synchronisation with a GPU instead of two
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
