"""The linear head of a run once more, by gradient descent written out by hand (`kit.mechanism.linear_probe`).

head_by_hand(learn, run, step=17).losses

kit fits this head with scikit-learn's solver. Both minimise the same convex function, so they must find the same head.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from fastai.vision.all import Learner
from torch import Tensor
from torch.nn import functional as F

from kit.explain.finished import Finished
from kit.mechanism import linear_probe
from kit.mechanism.activations import identity, sigmoid, softmax
from kit.mechanism.losses import binary_cross_entropy, cross_entropy, mean_squared_error, one_hot
from kit.mechanism.tensors import append_ones
from kit.model.build import features_of
from kit.model.heads import classifier
from kit.tasks.text import CLASSIFICATION, MULTILABEL, REGRESSION
from kit.train.transfer import targets_of

MOST_STEPS, TOLERANCE, TINY = 3_000, 1e-6, 1e-12
# Of each task: the activation, the loss by hand and the same of PyTorch, both as the mean over all elements.
FUNCTIONS = {
    CLASSIFICATION: (softmax, cross_entropy, F.cross_entropy),
    MULTILABEL: (sigmoid, binary_cross_entropy, F.binary_cross_entropy_with_logits),
    REGRESSION: (identity, mean_squared_error, F.mse_loss),
}


@dataclass(frozen=True)
class HeadByHand:
    """Gradient descent from 0 on the standardised features of all training images, and one of its steps.

    n, features: images, and features of each. l2: the penalty, from scikit-learn's C (strength). losses: before each
    step, with penalty. rate: the learning rate. step: the one that is shown, from 1. weight, gradient: before this step
    (outputs, features + 1), of which the last column is the bias. predictions, targets: at this step (n, outputs).
    paths, labels: of the images. autograd: the largest difference of this gradient from that of PyTorch's autograd.
    solver: the largest difference of a prediction after the last step from that of the head of the run. largest: the
    largest element of the last gradient.
    """

    n: int
    features: int
    strength: float
    l2: float
    losses: list[float]
    rate: float
    step: int
    weight: Tensor
    gradient: Tensor
    predictions: Tensor
    targets: Tensor
    paths: list[str]
    labels: list[str]
    autograd: float
    solver: float
    largest: float


def head_by_hand(learn: Learner, run: Finished, step: int = 1) -> HeadByHand:
    """Descend from 0 until no element of the gradient is above 1e-6, or for 3,000 steps, and at least to `step`.

    learn: with the body on whose features the head was fitted, and with this head.
    """
    rows, strength, linear = learn.dls.train_ds.items, run.chosen["strength"], classifier(learn.model)[0]
    features, numbers = features_of(learn, rows, create=True), torch.from_numpy(targets_of(learn, rows))
    spread = features.std(0, dtype=np.float64)
    standard = (features - features.mean(0, dtype=np.float64)) / np.where(spread > TINY, spread, 1.0)
    x, n = append_ones(torch.from_numpy(standard)), len(rows)
    target, terms = numbers.double(), linear.out_features
    if run.recipe.task == CLASSIFICATION:
        target, terms = one_hot(numbers, linear.out_features).double(), 1
    activation, by_hand, theirs = FUNCTIONS[run.recipe.task]
    # Losses of an image are sums over its outputs, and half the squared error. Of two classes scikit-learn fits one
    # vector w, and kit gives the classes w / 2 and -w / 2, which have half the penalty.
    terms = terms / 2 if run.recipe.task == REGRESSION else terms
    l2 = (2 if run.recipe.task == CLASSIFICATION and linear.out_features == 2 else 1) / (strength * n)

    def total(loss: Callable, weight: Tensor) -> Tensor:
        return terms * loss(x @ weight.T, target) + l2 / 2 * weight[:, :-1].square().sum()

    losses, shown = [], None
    for weight, gradient in linear_probe.descend(x, target, l2, activation=activation):
        losses.append(float(total(by_hand, weight)))
        shown = (weight, gradient) if len(losses) == step else shown
        largest = float(gradient.abs().max())
        if shown and (largest <= TOLERANCE or len(losses) >= MOST_STEPS):
            break
    leaf = shown[0].clone().requires_grad_()
    total(theirs, leaf).backward()
    with torch.no_grad():
        fitted = F.linear(torch.from_numpy(features), linear.weight.cpu(), linear.bias.cpu()).double()
    return HeadByHand(
        n=n,
        features=features.shape[1],
        strength=strength,
        l2=l2,
        losses=losses,
        rate=linear_probe.step_size(x, l2, activation),
        step=step,
        weight=shown[0],
        gradient=shown[1],
        predictions=activation(x @ shown[0].T),
        targets=target,
        paths=rows["path"].tolist(),
        labels=rows["label"].tolist(),
        autograd=float((leaf.grad - shown[1]).abs().max()),
        solver=float((activation(x @ weight.T) - activation(fitted)).abs().max()),
        largest=largest,
    )
