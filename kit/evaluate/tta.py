"""Test-time augmentation: the error rate of averaged predictions on augmented views, beside the plain one.

evaluate_views(learn, result, 4).error_rate              # not what a bundle does: it predicts each image once
"""

from typing import Any

import numpy as np

from kit.evaluate.result import Result
from kit.machine import fp32_convolutions
from kit.tasks.training import training_of
from kit.train.state import random_state_kept


def evaluate_views(learn: Any, plain: Result, views: int) -> Result | None:
    """fastai's `learn.tta` on the validation images of `plain`, the learner's own evaluation; None for no views.

    Each probability, or number, is three parts of the mean over `views` augmented views of the image, and one part of
    that on the image as it is. What follows draws the same random numbers as if nothing had been done here.
    """
    if not views:
        return None
    # `tta` takes its softmax or sigmoid from the loss.
    own, learn.loss_func = learn.loss_func, training_of(plain.task).loss(learn.spec.output_range)
    try:
        with random_state_kept(learn.dls), learn.no_bar(), learn.no_logging(), fp32_convolutions():
            outputs, _ = learn.tta(n=views)
    finally:
        learn.loss_func = own
    return plain.again(np.asarray(outputs, dtype=np.float64))
