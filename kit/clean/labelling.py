"""Label new images: those first that tell a model the most, with its suggestion.

session = start_labelling("photos", Recipe(), journal, ["cat", "dog"])

The order joins uncertainty and diversity (B. Settles, Active Learning, 2012). Before there are labels, each next image
is the one furthest from all before (k-center greedy: O. Sener, S. Savarese, Active Learning for Convolutional Neural
Networks, ICLR 2018). Then those come first of which the model is least sure and that are far from the labelled ones.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import softmax

from kit import data
from kit.clean.decisions import Decisions
from kit.clean.findings import Finding
from kit.clean.session import Session, features_of_table, reduced, with_names
from kit.data.sources import find_folder
from kit.data.splits import inner_folds
from kit.errors import DataError
from kit.features.neighbours import nearest
from kit.intervals import wilson
from kit.manifest import find_bundle
from kit.recipe import Recipe
from kit.tasks.text import CLASSIFICATION
from kit.tasks.training import training_of
from kit.train.linear import cross_predict, fit_head

UNLABELLED = "unlabelled"
FIRST_MODEL, FOLDS = 20, 5
AT_ONCE = 50  # cards that are sent in one order


@dataclass
class LabelSession(Session):
    """A session whose images have no labels yet; decisions give them.

    given: the classes to begin with. suggested: the labels that another model gives, while there are few decisions.
    """

    given: list[str] = field(default_factory=list)
    suggested: list[str] | None = None

    mode: ClassVar[str] = "label"
    kinds: ClassVar[dict[str, str]] = {UNLABELLED: "to label"}

    @property
    def classes(self) -> list[str]:
        """The classes given, and those that decisions brought."""
        decided = sorted(label for label in set(self.labels()) if label)
        return list(dict.fromkeys([*self.given, *decided]))

    def look(self) -> None:
        """Order the images without label, and suggest a label where a model can."""
        with self._again:
            begun = time.perf_counter()
            names = self.table["name"].tolist()
            labels = np.array(self.labels(), dtype=object)
            gone = np.array([self.journal.dropped(name) for name in names])
            have = np.array([label != "" for label in labels]) & ~gone
            open_rows = np.flatnonzero(~have & ~gone)
            shares, vocab = self._predict(labels, have)
            order = _order(self.features, have, open_rows, shares)
            self._said = self._measured(labels, have)
            self.findings = [self._finding(int(row), shares, vocab) for row in order]
            self.seconds = time.perf_counter() - begun

    def _predict(self, labels: np.ndarray, have: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
        """Class shares (n, classes) of a head on the labels so far, and the classes; None before it can be fitted."""
        known = labels[have].tolist()
        vocab = sorted(set(known))
        if len(vocab) < 2 or len(known) < 4:
            return None, vocab
        targets = training_of(self.task).targets(known, vocab)
        head = fit_head(self.features[have], targets, np.full(len(known), -1), self.task)
        return softmax(self.features @ head.weight.T + head.bias, axis=1), vocab

    def _finding(self, row: int, shares: np.ndarray | None, vocab: list[str]) -> Finding:
        if shares is None:
            other = self.suggested[row] if self.suggested else ""
            reason = f"the other model says {other}" if other else "unlike the images before it"
            return Finding(row, UNLABELLED, 0.0, reason, other)
        best = int(shares[row].argmax())
        reason = f"{vocab[best]}, {shares[row, best]:.0%} sure"
        return Finding(row, UNLABELLED, float(1 - shares[row, best]), reason, vocab[best])

    def says(self) -> str:
        """How good a model on the labels at the last look is, cross-validated, from 20 labels on."""
        return self._said

    def _measured(self, labels: np.ndarray, have: np.ndarray) -> str:
        rows = np.flatnonzero(have)
        known = labels[rows].tolist()
        if len(rows) < FIRST_MODEL or len(set(known)) < 2:
            return f"a first model after {FIRST_MODEL} labels of two classes" if len(rows) < FIRST_MODEL else ""
        groups = self.table["group"].iloc[rows].tolist()
        folds = inner_folds(pd.DataFrame({"label": known, "group": groups}), FOLDS, seed=0)
        training, there = training_of(self.task), folds >= 0
        targets = training.targets(known, sorted(set(known)))
        outputs = cross_predict(self.features[rows], targets, folds, self.task)
        rate = wilson(training.mistakes(outputs[there], targets[there]), int(there.sum()))
        return f"a model on these labels: error {rate}; images that are hard come first, so it is lower on the others"


def _order(features: np.ndarray, have: np.ndarray, open_rows: np.ndarray, shares: np.ndarray | None) -> list[int]:
    """The rows to label next: up to `AT_ONCE` chosen one by one, then the others."""
    if not len(open_rows):
        return []
    own = features[open_rows]
    seen = features[have] if have.any() else features.mean(0, keepdims=True)
    far = 1 - nearest(own, 1, among=seen)[1][:, 0]
    doubt = np.ones(len(open_rows)) if shares is None else 1 - shares[open_rows].max(1)
    chosen: list[int] = []
    for _ in range(min(AT_ONCE, len(open_rows))):
        value = np.where(np.isin(np.arange(len(open_rows)), chosen), -np.inf, (doubt + 0.05) * far)
        best = int(value.argmax())
        chosen.append(best)
        far = np.minimum(far, 1 - nearest(own, 1, among=own[[best]])[1][:, 0])
    by_doubt = np.argsort(-doubt, kind="stable")
    return open_rows[[*chosen, *by_doubt[~np.isin(by_doubt, chosen)]]].tolist()


def start_labelling(
    source: str | Path, recipe: Recipe, journal: Decisions, classes: list[str], like: Path | None = None
) -> LabelSession:
    """A session over the images of a folder, whatever their folders are called. classes: to begin with. like: a bundle
    or run that gives the classes, and suggestions until there are labels. Raises `DataError` without classes."""
    folder = find_folder(source)
    if recipe.task != CLASSIFICATION:
        problem = f"task={recipe.task!r}: images are labelled with one class each"
        raise DataError(problem, fix=f"--task {CLASSIFICATION}; write other labels into a CSV (--labels)")
    if not classes and like is None:
        raise DataError("there are no classes to choose from", fix="--classes cat,dog, or --like RUN")
    table = data.survey(source, label=_no_label, split="random", follow_links=recipe.follow_links)
    table = with_names(table.assign(label="", split=""), folder)
    suggested = None
    if like is not None:
        from kit.bundle.read import load

        predictor = load(find_bundle(like))
        if predictor.task != CLASSIFICATION:
            raise DataError(f"{like} is a {predictor.task} model", fix="give one of --task classification")
        classes = [*predictor.vocab, *classes]
        suggested = [one.label or "" for one in predictor.predict(table["path"].tolist())]
    features = reduced(features_of_table(table, recipe))
    unused = {"copies": [], "similar": np.empty((0, 0), int)}
    return LabelSession(folder, recipe, table, features, **unused, journal=journal, given=classes, suggested=suggested)


def _no_label(path: Path) -> str:
    return "none"
