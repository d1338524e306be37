"""Which labels are probably wrong: cleanlab's ranking of held-out predictions by linear heads on features.

opinions = label_opinions(labels, features, groups, "classification")      # opinions.suspect, .quality, .suggestion

Heads are fitted twice: the second time without the labels that the first ones contradict, which would otherwise pull
their neighbours along. Source: C. Northcutt, L. Jiang, I. Chuang, Confident Learning: Estimating Uncertainty in Dataset
Labels, JAIR 70 (2021).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from kit.data.splits import inner_folds
from kit.evaluate.calibration import calibrated, fit_temperature
from kit.tasks.text import CLASSIFICATION, MULTILABEL, REGRESSION, classes_of, join_classes, join_numbers, shown
from kit.tasks.training import training_of
from kit.train.linear import cross_predict

FOLDS, MANY_IMAGES, FOLDS_OF_MANY = 10, 2_000, 5
STRENGTHS = (1e-2, 1e-1)  # taken by mistakes on held-out images: wrong labels favour unsure heads by the loss
SURE = 0.8  # share from which a disagreement is always shown
FAR = 4.0  # robust standard deviations from which a number does not fit
MAD = 1.4826  # a normal distribution's standard deviation in units of its median absolute deviation


@dataclass(frozen=True)
class Opinions:
    """What heads that were fitted without an image say of its label, each of length n.

    quality: 0 to 1, the lower the more likely the label is wrong; NaN where no head could say. suspect: whether it is
    probably wrong. suggestion: the label that fits better. reason: both in words. certainty: 0 to 1, of the suggestion.
    """

    quality: np.ndarray
    suspect: np.ndarray
    suggestion: list[str]
    reason: list[str]
    certainty: np.ndarray


def label_opinions(labels: Sequence[str], features: np.ndarray, groups: Sequence[str], task: str) -> Opinions:
    """The opinions for the labels of images with these features (n, f). groups: of copies, held out together."""
    training = training_of(task)
    vocab = sorted(training.count(labels))
    targets = training.targets(labels, vocab)
    rows = pd.DataFrame({"label": training.strata(labels), "group": groups})
    folds = inner_folds(rows, FOLDS if len(rows) <= MANY_IMAGES else FOLDS_OF_MANY, seed=0)
    if (folds < 0).all() or len(vocab) < training.fewest_classes:
        nothing = np.zeros(len(rows), bool)
        return Opinions(np.full(len(rows), np.nan), nothing, list(labels), [""] * len(rows), np.zeros(len(rows)))
    solver, there = training.solver(targets, False), folds >= 0
    tried = {one: cross_predict(features, targets, folds, task, strength=one) for one in STRENGTHS}
    wrong = {one: training.mistakes(outputs[there], targets[there]) for one, outputs in tried.items()}
    losses = {one: float(solver.losses(outputs[there], there).mean()) for one, outputs in tried.items()}
    strength = min(STRENGTHS, key=lambda one: (wrong[one] or 0, losses[one]))
    first = OPINIONS[task](labels, targets, vocab, tried[strength])
    if not first.suspect.any():
        return first
    outputs = cross_predict(features, targets, folds, task, ~first.suspect, strength)
    return OPINIONS[task](labels, targets, vocab, outputs)


def _of_classes(labels: Sequence[str], targets: np.ndarray, vocab: list[str], outputs: np.ndarray) -> Opinions:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    there = np.isfinite(outputs[:, 0])
    shares = np.full(outputs.shape, 1 / len(vocab))
    shares[there] = softmax(outputs[there], axis=1)
    if there.any():  # regularised heads are less sure than they are right
        shares[there] = calibrated(shares[there], fit_temperature(shares[there], targets[there]))
    quality, suspect = np.full(len(labels), np.nan), np.zeros(len(labels), bool)
    quality[there] = get_label_quality_scores(targets[there], shares[there])
    with warnings.catch_warnings():  # about classes of few images
        warnings.simplefilter("ignore", UserWarning)
        suspect[there] = find_label_issues(targets[there], shares[there], n_jobs=1) if len(vocab) > 1 else False
    best = shares.argmax(1)
    # cleanlab compares with the mean confidence of a class, which hardly any image reaches where all are sure.
    suspect |= shares.max(1) >= SURE
    suspect &= best != targets
    reasons = [
        f"looks like {vocab[other]} ({shares[row, other]:.0%}), is labelled {label} ({shares[row, targets[row]]:.0%})"
        for row, (other, label) in enumerate(zip(best, labels, strict=True))
    ]
    return Opinions(quality, suspect, [vocab[other] for other in best], reasons, shares.max(1))


def _of_several(labels: Sequence[str], targets: np.ndarray, vocab: list[str], outputs: np.ndarray) -> Opinions:
    """Each class of an image is a label of its own: missing, or there by mistake."""
    shares = expit(np.where(np.isfinite(outputs), outputs, 0.0))
    by_class = [
        _of_classes([""] * len(labels), targets[:, place], ["no", "yes"], _two(outputs[:, place]))
        for place in range(len(vocab))
    ]
    quality = np.stack([one.quality for one in by_class], axis=1)
    suspect = np.stack([one.suspect for one in by_class], axis=1)
    suggestions, reasons = [], []
    for row, label in enumerate(labels):
        wrong, own = {vocab[place] for place in np.flatnonzero(suspect[row])}, set(classes_of(label))
        suggestions.append(join_classes(own ^ wrong))
        parts = [
            f"{'probably has no' if name in own else 'probably also has'} {name} ({shares[row, vocab.index(name)]:.0%})"
            for name in sorted(wrong)
        ]
        reasons.append("; ".join(parts))
    certainty = np.abs(2 * shares - 1).min(1)
    return Opinions(quality.min(1), suspect.any(1), suggestions, reasons, certainty)


def _two(logits: np.ndarray) -> np.ndarray:
    """Logits (n,) of a yes as logits (n, 2) of no and yes."""
    return np.stack([0 * logits, logits], axis=1)  # NaN in both where it is


def _of_numbers(labels: Sequence[str], targets: np.ndarray, vocab: list[str], outputs: np.ndarray) -> Opinions:
    """A number does not fit where it lies further from the prediction than those of nearly all other images."""
    errors = outputs - targets
    middle = np.nanmedian(errors, axis=0)
    spread = MAD * np.nanmedian(np.abs(errors - middle), axis=0)
    far = (np.abs(errors - middle) / np.where(spread > 0, spread, np.inf)).max(1)
    quality = np.exp(-far / FAR)
    numbers = [", ".join(shown(number) for number in row) for row in outputs]
    reasons = [
        f"{number} would fit its features, is labelled {label}" for number, label in zip(numbers, labels, strict=True)
    ]
    suggestions = [join_numbers(float(f"{number:.4g}") for number in row) for row in np.nan_to_num(outputs)]
    return Opinions(quality, far > FAR, suggestions, reasons, 1 - quality)


OPINIONS: dict[str, Callable[..., Opinions]] = {
    CLASSIFICATION: _of_classes,
    MULTILABEL: _of_several,
    REGRESSION: _of_numbers,
}
