"""What corrected labels change, measured: the error with the old labels and with the new ones, on the same images.

print("\n".join(effect_lines(session)))
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit.data.splits import inner_folds
from kit.intervals import bootstrap_means, paired
from kit.tasks.training import training_of
from kit.train.linear import cross_predict

if TYPE_CHECKING:
    from kit.clean.session import Session

FOLDS = 5


def effect_lines(session: "Session") -> list[str]:
    """The effect in words: cross-validated error of a head trained on the old labels, and of one on the new labels.

    Both are tested on the new labels of all images that were not dropped, in the same folds. New labels that were
    chosen because a model disagreed agree with models better than those of new images will: a line says so.
    """
    kept = np.array([not session.journal.dropped(name) for name in session.table["name"]])
    old, new = session.table["label"][kept].tolist(), np.array(session.labels(), dtype=object)[kept].tolist()
    changed, dropped = sum(a != b for a, b in zip(old, new, strict=True)), int((~kept).sum())
    if not changed and not dropped:
        return ["nothing was changed yet"]
    training = training_of(session.task)
    vocab = sorted(set(training.count(old)) | set(training.count(new)))
    before, after = training.targets(old, vocab), training.targets(new, vocab)
    strata = pd.DataFrame({"label": training.strata(new), "group": session.table["group"][kept].tolist()})
    folds, features = inner_folds(strata, FOLDS, seed=0), session.features[kept]
    there = folds >= 0
    if not there.any():
        return ["too few images to measure what the decisions change"]
    outputs = [cross_predict(features, targets, folds, session.task)[there] for targets in (before, after)]
    outputs = [_with_all(one, training.solver(after, False).outputs) for one in outputs]
    what = f"with your {_count(changed, 'correction')}" + (
        f" and {_count(dropped, 'image')} dropped" if dropped else ""
    )
    wrong = [training.wrong(one, after[there]) for one in outputs]
    if wrong[0] is None:
        lines = [_of_losses(what, outputs, training.solver(after, False), there)]
    else:
        gap = paired(wrong[1], wrong[0])
        lines = [
            f"{what}: error {wrong[0].mean():.4f} -> {wrong[1].mean():.4f} on the same {there.sum()} images, "
            f"{FOLDS}-fold, by their new labels (difference {gap.difference.value:+.4f}, 95 % "
            f"{gap.difference.low:+.4f} to {gap.difference.high:+.4f}; McNemar's p = {gap.p:.3g})"
        ]
    lines.append(
        "note: labels that were changed where a model disagreed with them make every later error look lower than it is "
        "for new images; only validation labels that were checked at random, or all, are a fair measure"
    )
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _with_all(outputs: np.ndarray, count: int) -> np.ndarray:
    """Outputs with columns for classes that only the new labels have, which are never predicted."""
    missing = count - outputs.shape[1]
    return np.pad(outputs, ((0, 0), (0, max(0, missing))), constant_values=-np.inf)


def _of_losses(what: str, outputs: list[np.ndarray], solver, there: np.ndarray) -> str:
    """The change of the mean squared error of numbers, with its bootstrap interval."""
    before, after = (solver.losses(one, np.flatnonzero(there)) for one in outputs)
    gap = bootstrap_means((after - before)[:, None], lambda means: means[:, 0])
    return (
        f"{what}: mean squared error {before.mean():.4g} -> {after.mean():.4g} on the same {there.sum()} images, "
        f"{FOLDS}-fold, by their new labels (difference {gap.value:+.4g}, 95 % {gap.low:+.4g} to {gap.high:+.4g})"
    )
