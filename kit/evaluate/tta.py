"""Test-time augmentation: the error rate of averaged predictions on augmented views, beside the plain one.

evaluate_views(learn, result, 4).error_rate              # not what a bundle does: it predicts each image once
"""

from typing import Any

import numpy as np

from kit.evaluate.evaluation import Evaluation, exact_convolutions
from kit.train.state import random_numbers_kept


def evaluate_views(learn: Any, plain: Evaluation, views: int) -> Evaluation | None:
    """fastai's `learn.tta` on the validation images of `plain`, the learner's own evaluation; None for no views.

    Each probability is three parts of the mean over `views` augmented views of the image, and one part of that on the
    image as it is. What follows draws the same random numbers as if nothing had been done here.
    """
    from fastai.vision.all import CrossEntropyLossFlat

    if not views:
        return None
    own, learn.loss_func = learn.loss_func, CrossEntropyLossFlat()  # `tta` takes its softmax from the loss
    try:
        with random_numbers_kept(learn.dls), learn.no_bar(), learn.no_logging(), exact_convolutions():
            probabilities, _ = learn.tta(n=views)
    finally:
        learn.loss_func = own
    rows = plain.predictions
    return Evaluation.from_probabilities(rows["path"], rows["label"], np.asarray(probabilities), plain.vocab)
