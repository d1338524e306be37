"""A folder that is being cleaned: its images, their features, what was found, and the decisions so far.

session = start("photos", Recipe(), journal); session.findings
"""

import hashlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd

from kit import data
from kit.clean.copies import Pair, find_copies
from kit.clean.decisions import Decision, Decisions
from kit.clean.findings import Finding, find
from kit.clean.label_issues import label_opinions
from kit.console import say
from kit.data.datablock import device
from kit.data.sources import find_folder, labelled_images, scanned
from kit.errors import DataError
from kit.features.compute import compute_features
from kit.features.neighbours import nearest
from kit.intervals import Estimate, wilson
from kit.model.build import feature_body
from kit.recipe import Recipe
from kit.tasks.text import SEPARATOR, percent, readable
from kit.tasks.training import training_of

MANY_IMAGES, AXES = 10_000, 256
NEIGHBOURS, LIKE_IT, AUDITED, LEAST_AUDITED = 5, 24, 50, 10


@dataclass
class Session:
    """The images of a folder with all that is known of them.

    table: of `data.survey`, with the column `name` of `with_names`. features: float32 (n, f), of more than 10,000
    images their first 256 principal components. similar: (n, k), the rows most like each, nearest first. audit: rows of
    validation images drawn at random, to estimate the share of wrong labels. version: differs where rows stand for
    other images. Raises `DataError` for decisions in the journal that are no labels of the task.
    """

    folder: Path
    recipe: Recipe
    table: pd.DataFrame
    features: np.ndarray
    copies: list[Pair]
    similar: np.ndarray
    journal: Decisions
    findings: list[Finding] = field(default_factory=list)
    audit: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self):
        self._rows = {name: row for row, name in enumerate(self.table["name"])}
        names = "\n".join([str(self.folder), *self.table["name"], *self.table["sha256"]])
        self.version = hashlib.sha256(names.encode("utf-8", "backslashreplace")).hexdigest()[:16]
        self._check_decisions()
        self._again = threading.Lock()
        self.audit = _drawn(self.table)
        self.look()

    @property
    def task(self) -> str:
        """The task's name."""
        return self.recipe.task

    @property
    def classes(self) -> list[str]:
        """All classes, those that decisions brought too, sorted; [] for numbers."""
        return sorted(training_of(self.task).count(self.labels()))

    def labels(self) -> list[str]:
        """The label of each image after the decisions."""
        rows = zip(self.table["name"], self.table["label"], strict=True)
        return [self.journal.label(name, label) for name, label in rows]

    @property
    def mode(self) -> str:
        """The mode: clean, or label where the images have no labels yet."""
        return "clean"

    @property
    def kinds(self) -> dict[str, str]:
        """Further kinds of cards, with their names."""
        return {}

    @property
    def broken(self) -> list[dict[str, str]]:
        """Files that cannot be opened: path and reason."""
        found = [one for one in self.table.attrs["left_out"] if "label" in one]
        return [{"path": readable(one["path"]), "reason": readable(one["reason"])} for one in found]

    def label_of(self, row: int) -> str:
        """The label of one image after the decisions."""
        return self.journal.label(self.table["name"][row], self.table["label"][row])

    def decided_rows(self) -> list[int]:
        """The rows of images that have a decision."""
        names = list(self.journal.decisions)  # another thread may add one
        return [self._rows[name] for name in names if name in self._rows and self.journal.current(name)]

    def says(self) -> str:
        """What the decisions say so far, in words: the share of wrong labels."""
        share = self.wrong_share()
        if share is None:
            return ""
        return (
            f"of {share.n} validation images drawn at random {round(share.value * share.n)} had a wrong label: "
            f"{percent(share.value)} (95 % {percent(share.low)} to {percent(share.high)})"
        )

    def look(self) -> None:
        """Find what may be wrong, with the labels as they are now; dropped images are not considered."""
        with self._again:
            begun = time.perf_counter()
            kept = np.array([not self.journal.dropped(name) for name in self.table["name"]])
            rows = np.flatnonzero(kept)
            part = self.table.assign(label=self.labels())[kept].reset_index(drop=True)
            number = {int(row): place for place, row in enumerate(rows)}
            copies = [(number[a], number[b], c) for a, b, c in self.copies if a in number and b in number]
            features, labels = self.features[kept], part["label"].tolist()
            opinions = label_opinions(labels, features, part["group"].tolist(), self.task)
            similar = [[number[row] for row in self.similar[own].tolist() if row in number] for own in rows]
            found = find(part, features, opinions, copies, similar, self.recipe)
            self.findings = [
                replace(one, row=int(rows[one.row]), similar=tuple(int(rows[other]) for other in one.similar))
                for one in found
            ]
            self.seconds = time.perf_counter() - begun

    def row(self, name: str) -> int:
        """The row of an image by its path relative to the folder. Raises `DataError`."""
        if name not in self._rows:
            raise DataError(f"{name!r} is not an image of {self.folder}", fix="reload the page")
        return self._rows[name]

    def decide(self, decision: Decision, seen: int | None = None) -> int:
        """Store a decision; returns the number of decisions about the image. Raises `DataError`, `Conflict`."""
        self.row(decision.path)
        if decision.action == "label":
            decision = replace(decision, label=self._label(decision.label))
        return self.journal.add(replace(decision, reason=readable(decision.reason)), seen)

    def undo(self) -> int | None:
        """Take the last decision about one of the images back; returns its row, or None where there is none."""
        name = self.journal.last(among=self._rows)
        if name is None:
            return None
        self.journal.add(Decision(name, "undo"))
        return self._rows[name]

    def _label(self, text: str) -> str:
        """The label that a decision gives, as the tables have it. Raises `DataError`."""
        training, names, text = training_of(self.task), self.table.attrs.get("names", ()), readable(text.strip())
        if len(names) > 1:
            parts = text.split(SEPARATOR)
            if len(parts) != len(names):
                problem = f"{text!r} is not the {len(names)} numbers {', '.join(names)}"
                raise DataError(problem, fix=f"separate them by {SEPARATOR!r}")
            return SEPARATOR.join(map(training.of_text, parts))
        label = training.of_text(text)
        if not label and training.fewest_classes > 1:
            raise DataError("the label is empty", fix="name a class")
        return label

    def _check_decisions(self) -> None:
        for name in self._rows:
            now = self.journal.current(name)
            try:
                if now and now.action == "label":
                    self._label(now.label)
            except DataError as error:
                problem = f"{name} was decided as {now.label!r}, which is no label here: {error.problem}"
                raise DataError(problem, fix="say the same --task as before, or another --out") from error

    def like(self, row: int) -> list[int]:
        """The rows of the images most similar to one, most similar first."""
        count = min(LIKE_IT, len(self.table) - 1)
        rows, _ = nearest(self.features[[row]], count + 1, among=self.features)
        return [int(other) for other in rows[0] if other != row][:count]

    def wrong_share(self) -> Estimate | None:
        """The share of wrong labels among validation images drawn at random, with its interval.

        Counts those before the first undecided one, and none where these are fewer than 10 and not all: images that a
        finding names are decided first, and their labels are more often wrong.
        """
        found = [self.journal.current(name) for name in self.table["name"].iloc[self.audit]]
        decided = list(takewhile(bool, found))
        wrong = sum(one.action == "label" for one in decided)
        enough = decided and len(decided) >= min(LEAST_AUDITED, len(found))
        return wilson(wrong, len(decided)) if enough else None

    def save(self) -> None:
        """Write the CSV."""
        rows = self.table[["name", "label", "split", "group"]].rename(columns={"name": "path"})
        if self.mode == "label":
            rows = rows[[label != "" for label in self.labels()]]
        self.journal.write_csv(rows, self.table.attrs.get("names", ()))


def start(source: str | Path, recipe: Recipe, journal: Decisions, rows: pd.DataFrame | None = None) -> Session:
    """Read the images of a folder, compute their features, and look at them.

    rows: a table of its images with labels, instead of those that the recipe reads. Raises `KitError` where there are
    no images or labels.
    """
    how = data.table_args(recipe)
    listed = labelled_images(
        source if rows is None else rows,
        **{name: how[name] for name in ("label", "labels", "follow_links", "unlabelled", "targets")},
    )
    table, scan = scanned(listed, recipe.split, recipe.valid, recipe.seed, how["targets"])
    folder = find_folder(source)
    table = with_names(table, folder)
    features = reduced(features_of_table(table, recipe))
    say("look for copies ...")
    near = nearest(features, max(0, min(NEIGHBOURS, len(features) - 1)))
    copies = find_copies(near, scan.hashes, scan.pictures)
    return Session(folder, recipe, table, features, copies, near[0], journal)


def with_names(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A table with the column `name`: the path relative to the folder, with slashes and readable, as `--labels` reads
    it; the path of an image elsewhere stays absolute. Names that would become the same stay as they are."""
    found = [Path(path) for path in table["path"]]
    names = [(path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix() for path in found]
    counts = Counter(map(readable, names))
    return table.assign(name=[readable(name) if counts[readable(name)] == 1 else name for name in names])


def features_of_table(table: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """Features (n, f) of a table's images by the recipe's pretrained body."""
    where, (body, rules) = device(recipe.device), feature_body(recipe)
    return compute_features(body, table["path"].tolist(), table["sha256"].tolist(), rules, where, create=True)


def reduced(features: np.ndarray) -> np.ndarray:
    """The features, or, of many images, their first principal components, in which the rest is quicker."""
    if len(features) <= MANY_IMAGES or features.shape[1] <= AXES:
        return features
    mean, parts = features.mean(0), np.array_split(features, len(features) // MANY_IMAGES)  # no second copy of all
    _, axes = np.linalg.eigh(sum((part - mean).T @ (part - mean) for part in parts))
    return np.concatenate([(part - mean) @ axes[:, -AXES:] for part in parts], dtype=np.float32)


def _drawn(table: pd.DataFrame) -> list[int]:
    """Rows of validation images in random order, the same for the same table."""
    valid = np.flatnonzero(table["split"] == "valid")
    return np.random.default_rng(0).permutation(valid)[:AUDITED].tolist()
