"""Train a linear head from features: logistic regression, or ridge regression for numbers.

head = fit_head(features, targets, folds, "classification"); head.weight, head.bias, head.strength

The regularisation strength is chosen by cross-validation among the training images. Features are standardised for the
fit; the standardisation is then folded into weight and bias, so that the result is one linear layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.tasks.solvers import Solver
from kit.tasks.training import training_of

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
USUAL = 1e-2  # where there are too few images to choose
MAX_CV_IMAGES = 5_000
MOST_FITTED = 2_000
TINY = 1e-12


@dataclass(frozen=True)
class LinearHead:
    """weight (outputs, f) and bias (outputs,), float64, for features as the body gives them.

    strength: scikit-learn's C, the inverse of the L2 penalty. losses: the cross-validated loss of each strength tried.
    held_out: outputs (n, outputs) for the training images, each by a head fitted without it; NaN where there are none.
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
    """The linear head that minimises the task's loss on features (n, f).

    targets: classification: class numbers (n,); multilabel: 0 or 1 (n, classes); regression: numbers (n, targets), in
    the units that the linear layer gives. folds (n,): the fold in which an image is held out; -1: always trains.
    balanced: whether all classes have the same total weight. strengths: the candidates for C.
    """
    standard, mean, spread = _standardised(features)
    rotated, axes = _rotated(standard)
    solver = training_of(task).solver(targets, balanced)
    strength, losses, held_out = _choose(solver, rotated, folds, strengths)
    weight, bias = solver.fit(rotated, np.arange(len(rotated)), strength)
    weight = (weight if axes is None else weight @ axes) / spread
    return LinearHead(weight, bias - weight @ mean, strength, losses, held_out)


def cross_predict(
    features: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    task: str,
    trusted: np.ndarray | None = None,
    strength: float = USUAL,
) -> np.ndarray:
    """Outputs (n, outputs) for each image, of a head that was fitted on the images of the other folds.

    features, targets, folds: as in `fit_head`; images of fold -1 get NaN. trusted (n,), bool: the images on which heads
    are fitted, by default all. strength: scikit-learn's C. Of more than 2,000 images, classification's heads are linear
    discriminants, which find as many wrong labels in a fraction of the time (tests/bench/README.md).
    """
    rows, training = _rotated(_standardised(features)[0])[0], training_of(task)
    solver = (training.solver if len(rows) <= MOST_FITTED else training.quick_solver)(targets, False)
    trusted = np.ones(len(rows), bool) if trusted is None else trusted
    outputs = np.full((len(rows), solver.outputs), np.nan)
    for fold in np.unique(folds[folds >= 0]):
        weight, bias = solver.fit(rows, np.flatnonzero((folds != fold) & trusted), strength)
        outputs[folds == fold] = rows[folds == fold] @ weight.T + bias
    return outputs


def _standardised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features with mean 0 and standard deviation 1 in each column, and both before."""
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    spread = np.where(spread > TINY, spread, 1.0)
    return (features - mean) / spread, mean, spread


def _rotated(standard: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows rotated into as many dimensions as there are rows, where there are more features; an L2 penalty is invariant
    under rotation."""
    if standard.shape[1] <= standard.shape[0]:
        return standard, None
    left, scale, axes = np.linalg.svd(standard, full_matrices=False)
    return left * scale, axes


def _choose(
    solver: Solver, rows: np.ndarray, folds: np.ndarray, strengths: Sequence[float]
) -> tuple[float, dict[float, float], np.ndarray]:
    """The strength with the lowest cross-validated loss, all losses, and the held-out outputs at that strength."""
    some = np.unique(np.linspace(0, len(rows) - 1, min(MAX_CV_IMAGES, len(rows))).round().astype(int))
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
