"""Decisions about images, in an append-only file beside the CSV that is made from it.

with Journal(Path("photos-labels.csv")) as journal: journal.add(Decision("cat/1.jpg", "label", "dog"), seen=0)

Each decision is one line of JSON in NAME.jsonl, flushed to the disk (fsync) before it is confirmed, so that no crash
loses one. NAME.csv is the result of all lines, for `--labels`; it is written again after decisions, and at the next
start where that did not happen.
"""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from kit.errors import DataError, KitError, OutputError
from kit.files import check_parent, write_text
from kit.tasks.text import numbers_of

ACTIONS = ("label", "keep", "drop", "undo")
DROPPED = "out"  # the split of a row that is neither trained on nor measured
COLUMNS = ["path", "label", "split", "old_label", "action", "reason", "when"]


@dataclass(frozen=True)
class Decision:
    """What to do with an image: give it a `label`, "keep" its label, "drop" the image, or "undo" the last decision.

    path: relative to the folder. label: for the action "label". reason: the finding that led to it, in words. when: the
    time in UTC, ISO 8601; now by default.
    """

    path: str
    action: str
    label: str = ""
    reason: str = ""
    when: str = ""


class Conflict(KitError):
    """Another page decided about the image in the meantime."""


class Decisions:
    """All decisions of a table, by the path of the image, in the order in which they were made."""

    def __init__(self):
        self.decisions: dict[str, list[Decision]] = {}

    def count(self, path: str) -> int:
        """How many lines there are about an image."""
        return len(self.decisions.get(path, ()))

    def current(self, path: str) -> Decision | None:
        """The decision about an image that is in force, after all undos; None where there is none."""
        stack: list[Decision] = []
        for one in self.decisions.get(path, ()):
            if one.action != "undo":
                stack.append(one)
            elif stack:
                stack.pop()
        return stack[-1] if stack else None

    def last(self) -> str | None:
        """The image that was decided last and is not undone; None where there is none."""
        decided = [one for path in self.decisions if (one := self.current(path))]
        return max(decided, key=lambda one: one.when).path if decided else None

    def label(self, path: str, label: str) -> str:
        """The label of an image after its decision; `label` is the one before."""
        now = self.current(path)
        return now.label if now and now.action == "label" else label

    def dropped(self, path: str) -> bool:
        """Whether an image is to be left out."""
        now = self.current(path)
        return bool(now) and now.action == "drop"


class Journal(Decisions):
    """The decisions of one CSV file. Only one process can have it open; `KitError` for the second."""

    def __init__(self, csv: Path):
        super().__init__()
        check_parent(csv)
        self.csv, self.path = csv, csv.with_suffix(".jsonl")
        self._write = threading.Lock()
        self._lock = FileLock(f"{self.path}.lock")

    def __enter__(self) -> "Journal":
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            problem = f"{self.csv} is being edited by another kit clean or kit label"
            raise KitError(problem, fix="use the page that is open, stop it first, or say another --out") from error
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}", fix="say another --out") from error
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _read(self) -> None:
        if not self.path.exists():
            return
        lines = self.path.read_bytes().split(b"\n")
        complete, rest = lines[:-1], lines[-1]
        for number, line in enumerate(complete, 1):
            try:
                self._apply(Decision(**json.loads(line)))
            except (ValueError, TypeError) as error:
                problem = f"{self.path}: line {number} is no decision ({error})"
                raise DataError(problem, fix="remove that line, or say another --out") from error
        if rest:  # a line that a crash cut off was never confirmed
            with self.path.open("rb+") as file:
                file.truncate(sum(len(line) + 1 for line in complete))

    def add(self, decision: Decision, seen: int | None = None) -> int:
        """Store a decision and return how many the image now has.

        seen: how many decisions the page knew of; `Conflict` where there are others. Raises `OutputError` where the
        file cannot be written; the decision is not made then.
        """
        if decision.action not in ACTIONS:
            raise DataError(f"action {decision.action!r} is not known", fix=f"one of: {', '.join(ACTIONS)}")
        with self._write:
            if seen is not None and seen != self.count(decision.path):
                raise Conflict(f"{decision.path} was decided in another window", fix="look at it again")
            stamp = decision.when or datetime.now(UTC).isoformat(timespec="milliseconds")
            decision = Decision(decision.path, decision.action, decision.label, decision.reason, stamp)
            line = json.dumps(asdict(decision)).encode() + b"\n"
            self._append(line)
            self._apply(decision)
            return self.count(decision.path)

    def _append(self, line: bytes) -> None:
        try:
            with self.path.open("ab", buffering=0) as file:
                start = file.seek(0, os.SEEK_END)
                try:
                    if file.write(line) != len(line):
                        raise OSError(28, os.strerror(28))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(start)
                    raise
        except OSError as error:
            problem = f"{self.path} cannot be written: {error.strerror}"
            raise OutputError(problem, fix="make room; the decision was not made") from error

    def _apply(self, decision: Decision) -> None:
        self.decisions.setdefault(decision.path, []).append(decision)

    def write_csv(self, table: pd.DataFrame, names: Sequence[str] = ()) -> None:
        """Write the CSV, atomically, for a table of path (relative), label and split; without images without label.

        names: of several numbers in a label, each of which gets a column of its own.
        """
        rows = []
        for path, label, split in zip(table["path"], table["label"], table["split"], strict=True):
            now = self.current(path)
            split = DROPPED if self.dropped(path) else split
            told = (now.action, now.reason, now.when) if now else ("", "", "")
            if known := self.label(path, label):
                rows.append((path, known, split, label, *told))
        frame = pd.DataFrame(rows, columns=COLUMNS)
        if len(names) > 1:
            frame[list(names)] = [numbers_of(label) for label in frame["label"]]
        write_text(self.csv, frame.to_csv(index=False, lineterminator="\n"))
