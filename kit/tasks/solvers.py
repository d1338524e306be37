"""The linear layers that scikit-learn fits on features, one kind for each task: how each is fitted, and its loss.

weight, bias = Softmax(targets, balanced=False).fit(features, np.arange(len(features)), 1.0)
"""

import warnings
from typing import Any

import numpy as np

MOST_STEPS = 1_000
TINY = 1e-12
NEVER = 10.0  # how far the logit of a class without any training image lies below the lowest other


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
        """Classes without an image among `chosen` are never predicted."""
        weight, bias = np.zeros((self.outputs, rows.shape[1])), np.zeros(self.outputs)
        there = np.unique(self.targets[chosen])
        if len(there) > 1:
            model = _logistic(rows[chosen], self.targets[chosen], strength, self.balanced)
            own, constant = model.coef_, model.intercept_
            if len(own) == 1:  # of two classes scikit-learn gives the difference
                own, constant = np.concatenate([-own, own]) / 2, np.concatenate([-constant, constant]) / 2
            weight[there], bias[there] = own, constant
        self._never_predicted(bias, there)
        return weight, bias

    def _never_predicted(self, bias: np.ndarray, there: np.ndarray) -> None:
        """Set the bias of all classes but `there` so low that they are never predicted."""
        absent = np.setdiff1d(np.arange(self.outputs), there)
        bias[absent] = bias[there].min() - NEVER

    def losses(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Cross entropy, in nats."""
        shifted = outputs - outputs.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return -logs[np.arange(len(logs)), self.targets[which]]


class Discriminant(Softmax):
    """One class an image: linear discriminant analysis, whose time grows with the images but hardly with the classes.

    The outputs are logits. The covariance within the classes is shrunk towards a multiple of the identity.
    Source: J. Friedman, Regularized Discriminant Analysis, JASA 84 (1989).
    """

    def fit(self, rows: np.ndarray, chosen: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Classes without an image among `chosen` are never predicted; the share of shrinkage is 1 / (1 + 10 C)."""
        from scipy.linalg import solve

        own, targets = rows[chosen], self.targets[chosen]
        there, which, counts = np.unique(targets, return_inverse=True, return_counts=True)
        means = np.stack([own[which == place].mean(0) for place in range(len(there))])
        centred, shrinkage = own - means[which], 1 / (1 + 10 * strength)
        within = centred.T @ centred / len(own)
        within *= 1 - shrinkage
        within[np.diag_indices_from(within)] += shrinkage * (centred**2).mean() + TINY
        weight, bias = np.zeros((self.outputs, rows.shape[1])), np.zeros(self.outputs)
        weight[there] = solve(within, means.T, assume_a="pos").T
        bias[there] = np.log(counts / len(own)) - (means * weight[there]).sum(1) / 2
        self._never_predicted(bias, there)
        return weight, bias


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


def _logistic(rows: np.ndarray, labels: np.ndarray, strength: float, balanced: bool) -> Any:
    """scikit-learn's logistic regression, fitted; one that has not quite converged serves as well."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights = "balanced" if balanced else None
        return LogisticRegression(C=strength, max_iter=MOST_STEPS, class_weight=weights).fit(rows, labels)
