"""Progressive resizing: training starts with images of half the size and ends with full size, which saves time.

learn.fine_tune(3, cbs=[ProgressiveResizing(size=224, epochs=4)])

Source: Howard, "Training ImageNet in 3 hours for $25", fast.ai 2018; Tan, Le, EfficientNetV2, ICML 2021.
"""

import torch
from fastai.vision.all import Callback, Learner
from torch import Tensor
from torch.nn import functional as F

from kit.errors import RecipeError, first_line
from kit.train.precision import FEWEST_PIXELS

SMALLEST = 0.5  # of the full size, at the first step
FULL_FROM = 0.75  # of all steps; from then on images have full size
STEP = 16  # pixels


class ProgressiveResizing(Callback):
    """Downsizes training batches, starting with half of `size`; validation has full size. epochs: of all phases."""

    order = 95  # after mixup and cutmix
    run_valid = False

    def __init__(self, size: int, epochs: int):
        super().__init__()
        self.size, self.epochs, self.done = size, epochs, 0

    def before_batch(self) -> None:
        """Downsize the batch."""
        side = side_at((self.done + self.iter / self.n_iter) / self.epochs, self.size)
        if side < self.size:
            self.learn.xb = tuple(downsize(x, side) for x in self.xb)

    def after_epoch(self) -> None:
        """Count the epochs."""
        self.done += 1


def side_at(progress: float, size: int) -> int:
    """The image size in pixels a side after the share `progress` (0 to 1) of all steps."""
    share = SMALLEST + (1 - SMALLEST) * progress / FULL_FROM
    return size if share >= 1 else min(size, max(FEWEST_PIXELS, int(share * size / STEP) * STEP))


def downsize(images: Tensor, side: int) -> Tensor:
    """Images (n, 3, h, w) to (n, 3, side, side), with antialiasing."""
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def progressive_resizing(learn: Learner, size: int, epochs: int) -> ProgressiveResizing:
    """The callback. Raises `RecipeError` where the network does not accept the smallest images."""
    side, training = side_at(0, size), learn.model.training
    try:
        with torch.no_grad():
            learn.model.eval()(torch.zeros(2, 3, side, side, device=learn.dls.device))
    except Exception as error:
        problem = f"progressive=True begins with {side} x {side} pixels, which this network refuses"
        raise RecipeError(f"{problem} ({first_line(error)})", fix="leave it out, or choose a ResNet") from error
    finally:
        learn.model.train(training)
    return ProgressiveResizing(size, epochs)
