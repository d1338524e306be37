"""What may be wrong with each image of a table: its label, copies of it, its content, its quality.

for one in session.findings: print(table["path"][one.row], one.kind, one.reason)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.clean.copies import Pair
from kit.clean.label_issues import MAD, Opinions
from kit.data.image_quality import quality_problems
from kit.evaluate import ood
from kit.recipe import Recipe
from kit.tasks.text import readable
from kit.tasks.training import TaskTraining, training_of

KINDS = {
    "label": "probably a wrong label",
    "neither": "probably none of the classes",
    "copy": "a copy of another image",
    "odd": "unlike all others",
    "quality": "poor quality",
    "broken": "cannot be opened",
}
FOLDS, MIN_STRATUM = 10, 5
ODD, VERY_ODD = 2.7, 4.5  # robust standard deviations of the distance to the nearest class


@dataclass(frozen=True)
class Finding:
    """A finding about the image in `row` of the table: its kind (a key of `KINDS`), how likely it is (0 to 1), the
    reason in words, a better label ("" for none), and rows of images to compare it with."""

    row: int
    kind: str
    score: float
    reason: str
    suggestion: str = ""
    similar: tuple[int, ...] = ()


def find(
    table: pd.DataFrame,
    features: np.ndarray,
    opinions: Opinions,
    copies: Sequence[Pair],
    similar: Sequence[Sequence[int]],
    recipe: Recipe,
) -> list[Finding]:
    """All findings, most likely first within each kind, kinds in the order of `KINDS`.

    table: of `data.survey`. features: (n, f). opinions: of `label_opinions`. copies: of `find_copies`. similar: the
    rows most like each. recipe: its task and its size in pixels a side count.
    """
    found = [
        *_about_labels(opinions, similar),
        *_about_copies(table, copies),
        *_odd_ones(table, features, similar, training_of(recipe.task)),
        *_about_quality(table, recipe.input_size),
    ]
    kinds = list(KINDS)
    return sorted(found, key=lambda one: (kinds.index(one.kind), -one.score, one.row))


def _about_labels(opinions: Opinions, similar: Sequence[Sequence[int]]) -> list[Finding]:
    return [
        Finding(
            int(row),
            "label",
            float(1 - opinions.quality[row]),
            opinions.reason[row],
            opinions.suggestion[row],
            tuple(similar[row]),
        )
        for row in np.flatnonzero(opinions.suspect)
    ]


def _about_copies(table: pd.DataFrame, copies: Sequence[Pair]) -> list[Finding]:
    """A finding for the second image of each pair; pairs across classes or splits are the most harmful."""
    labels, splits, paths = (table[name].tolist() for name in ("label", "split", "path"))
    found = []
    for left, right, likeness in copies:
        harm = [
            f"labels {labels[left]} and {labels[right]}" if labels[left] != labels[right] else "",
            f"splits {splits[left]} and {splits[right]}" if splits[left] != splits[right] else "",
        ]
        harm = " and ".join(filter(None, harm))
        reason = f"a copy of {readable(Path(paths[left]).name)}{f', with {harm}' if harm else ''}"
        found.append(Finding(right, "copy", float(likeness if harm else likeness / 2), reason, similar=(left,)))
    return found


def _odd_ones(
    table: pd.DataFrame, features: np.ndarray, similar: Sequence[Sequence[int]], training: TaskTraining
) -> list[Finding]:
    """Images that detectors fitted on the others (`kit.evaluate.ood`) find far from all classes."""
    labels = np.array(training.strata(table["label"].tolist(), MIN_STRATUM))
    folds = np.random.default_rng(0).permutation(len(table)) % FOLDS
    scores = np.empty(len(table))
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        detector = ood.fit(features[inside], labels[inside], features[outside])
        if detector is None:
            return []
        scores[outside] = detector.scores(features[outside])
    middle = np.median(scores)
    far = (scores - middle) / max(MAD * np.median(np.abs(scores - middle)), np.finfo(np.float32).eps)
    found = []
    for row in np.flatnonzero(far > ODD):
        kind = "neither" if far[row] > VERY_ODD and training.fewest_classes else "odd"
        reason = f"its distance to the usual images is {scores[row] / middle:.1f} times that of most"
        found.append(Finding(int(row), kind, float(1 - ODD / far[row] / 2), reason, similar=tuple(similar[row])))
    return found


def _about_quality(table: pd.DataFrame, size: int) -> list[Finding]:
    return [
        Finding(int(row), "quality", 0.5, name)
        for name, rows in quality_problems(table, size).items()
        for row in rows.index
    ]


def as_rows(findings: Sequence[Finding], table: pd.DataFrame) -> list[dict[str, Any]]:
    """The findings for programs: path, label, kind, score, reason, suggestion, and the paths of similar images."""
    paths, labels = [readable(path) for path in table["path"]], table["label"].tolist()
    return [
        {"path": paths[one.row], "label": labels[one.row]}
        | {name: value for name, value in asdict(one).items() if name != "row"}
        | {"similar": [paths[row] for row in one.similar]}
        for one in findings
    ]
