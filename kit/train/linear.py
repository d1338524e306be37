"""A linear head learned from features at once: logistic regression, or ridge regression for numbers.

head = fit_head(features, targets, folds, "classification"); head.weight, head.bias, head.strength

The strength of the regularisation is chosen by cross-validation inside the training images. Features are standardised
while the head is learned; the standardisation is then folded into weight and bias, so that one linear layer remains.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
USUAL = 1e-2  # where there are too few images to choose
MOST_TO_CHOOSE = 5_000
MOST_STEPS = 1_000
NEVER = 10.0  # how far the logit of a class without any training image lies below the lowest other
TINY = 1e-12


@dataclass(frozen=True)
class LinearHead:
    """weight (outputs, f) and bias (outputs,), float64, for features as the body gives them.

    strength: scikit-learn's C, the inverse of the L2 penalty. losses: the cross-validated loss of each strength tried.
    held_out: for each training image what a head said that never saw it, (n, outputs); NaN where none was asked.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    losses: dict[float, float]
    held_out: np.ndarray


def fit_head(
    features: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    task: str,
    balanced: bool = False,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearHead:
    """The head that lowers the task's loss on features (n, f) most.

    targets: classification: class numbers (n,); multilabel: 0 or 1 (n, classes); regression: numbers (n, targets), in
    the units that the linear layer gives. folds (n,): which fold holds an image out; -1 for one that always trains.
    balanced: whether all classes weigh the same, however rare. strengths: among which to choose.
    """
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    spread = np.where(spread > TINY, spread, 1.0)
    rotated, axes = _rotated((features - mean) / spread)
    solver = SOLVERS[task](targets, balanced)
    strength, losses, held_out = _choose(solver, rotated, folds, strengths)
    weight, bias = solver.fit(rotated, np.arange(len(rotated)), strength)
    weight = (weight if axes is None else weight @ axes) / spread
    return LinearHead(weight, bias - weight @ mean, strength, losses, held_out)


def _rotated(standard: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows in fewer dimensions where there are more features than rows: an L2 penalty does not see a rotation."""
    if standard.shape[1] <= standard.shape[0]:
        return standard, None
    left, scale, axes = np.linalg.svd(standard, full_matrices=False)
    return left * scale, axes


def _choose(
    solver: "Solver", rows: np.ndarray, folds: np.ndarray, strengths: Sequence[float]
) -> tuple[float, dict[float, float], np.ndarray]:
    """The strength with the lowest cross-validated loss, all losses, and what was predicted of each image at it."""
    some = np.unique(np.linspace(0, len(rows) - 1, min(MOST_TO_CHOOSE, len(rows))).round().astype(int))
    some_folds = folds[some]
    nothing = np.full((len(rows), solver.outputs), np.nan)
    if some_folds.max() < 0:
        return (USUAL if len(strengths) > 1 else strengths[0]), {}, nothing
    losses, predicted = {}, {}
    for strength in strengths:
        held_out = nothing.copy()
        for fold in range(some_folds.max() + 1):
            inside, outside = some[some_folds != fold], some[some_folds == fold]
            weight, bias = solver.fit(rows, inside, strength)
            held_out[outside] = rows[outside] @ weight.T + bias
        there = np.isfinite(held_out[:, 0])
        losses[strength], predicted[strength] = float(solver.losses(held_out[there], there).mean()), held_out
    best = min(losses, key=losses.get)
    return best, losses, predicted[best]


class Solver:
    """The linear layer of a task on rows of features: how it is fitted, and its loss. outputs: how many it gives."""

    def __init__(self, targets: np.ndarray, balanced: bool):
        self.targets, self.balanced = targets, balanced
        self.outputs = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1

    def fit(self, rows: np.ndarray, chosen: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Weight (outputs, d) and bias (outputs,) from the rows numbered `chosen`."""
        raise NotImplementedError

    def losses(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The loss (m,) of each of the images that `which` (n,), bool, names; outputs: (m, outputs)."""
        raise NotImplementedError


class Softmax(Solver):
    """One class an image: multinomial logistic regression. The outputs are logits."""

    def fit(self, rows: np.ndarray, chosen: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Classes without an image among `chosen` are never said."""
        weight, bias = np.zeros((self.outputs, rows.shape[1])), np.zeros(self.outputs)
        there = np.unique(self.targets[chosen])
        if len(there) > 1:
            model = _logistic(rows[chosen], self.targets[chosen], strength, self.balanced)
            own, constant = model.coef_, model.intercept_
            if len(own) == 1:  # of two classes scikit-learn gives the difference
                own, constant = np.concatenate([-own, own]) / 2, np.concatenate([-constant, constant]) / 2
            weight[there], bias[there] = own, constant
        absent = np.setdiff1d(np.arange(self.outputs), there)
        bias[absent] = bias[there].min() - NEVER
        return weight, bias

    def losses(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Cross entropy, in nats."""
        shifted = outputs - outputs.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return -logs[np.arange(len(logs)), self.targets[which]]


class Sigmoids(Solver):
    """Any number of classes an image: a logistic regression for each class. The outputs are logits."""

    def fit(self, rows: np.ndarray, chosen: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """A class that all images have, or none, gets a constant."""
        weight, bias = np.zeros((self.outputs, rows.shape[1])), np.zeros(self.outputs)
        for place in range(self.outputs):
            has = self.targets[chosen, place]
            if has.min() == has.max():
                bias[place] = NEVER if has[0] else -NEVER
                continue
            model = _logistic(rows[chosen], has, strength, self.balanced)
            weight[place], bias[place] = model.coef_[0], model.intercept_[0]
        return weight, bias

    def losses(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Binary cross entropy, in nats, the mean over the classes."""
        signs = 2.0 * self.targets[which] - 1
        return np.logaddexp(0, -signs * outputs).mean(1)


class Ridge(Solver):
    """Numbers: ridge regression, the bias not penalised. The outputs are numbers in the units of the targets."""

    def fit(self, rows: np.ndarray, chosen: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """A linear layer."""
        from sklearn.linear_model import Ridge as ScikitRidge

        model = ScikitRidge(alpha=1 / strength).fit(rows[chosen], self.targets[chosen])
        return np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)

    def losses(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The squared error, the mean over the targets."""
        return ((outputs - self.targets[which]) ** 2).mean(1)


SOLVERS: dict[str, type[Solver]] = {CLASSIFICATION: Softmax, MULTILABEL: Sigmoids, REGRESSION: Ridge}


def _logistic(rows: np.ndarray, labels: np.ndarray, strength: float, balanced: bool) -> Any:
    """scikit-learn's logistic regression, fitted; one that has not quite converged serves as well."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights = "balanced" if balanced else None
        return LogisticRegression(C=strength, max_iter=MOST_STEPS, class_weight=weights).fit(rows, labels)
