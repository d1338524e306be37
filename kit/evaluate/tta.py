"""Test-time augmentation: the result of predictions averaged over augmented views of each image.

evaluate_views(learn, result, 4).error_rate              # a bundle predicts each image once, without augmentation
"""

from typing import Any

import numpy as np

from kit.evaluate.result import Result
from kit.machine import fp32_convolutions
from kit.tasks.training import training_of
from kit.train.state import random_state_kept


def evaluate_views(learn: Any, plain: Result, views: int) -> Result | None:
    """The result of fastai's `learn.tta` on the validation images; None where `views` is 0.

    plain: the result without augmentation. Each probability, or number, is 0.75 times the mean over `views` augmented
    views plus 0.25 times that of the image itself. All random states are restored on exit.
    """
    if not views:
        return None
    # `tta` takes its activation (softmax, sigmoid) from the loss.
    own, learn.loss_func = learn.loss_func, training_of(plain.task).loss(learn.spec.output_range)
    try:
        with random_state_kept(learn.dls), learn.no_bar(), learn.no_logging(), fp32_convolutions():
            outputs, _ = learn.tta(n=views)
    finally:
        learn.loss_func = own
    return plain.again(np.asarray(outputs, dtype=np.float64))
