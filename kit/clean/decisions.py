"""Decisions about images, in an append-only file beside the CSV that is made from it.

with Journal(Path("photos-labels.csv")) as journal: journal.add(Decision("cat/1.jpg", "label", "dog"), seen=0)

Each decision is one line of JSON in NAME.jsonl, flushed to the disk (fsync) before it is confirmed, so that no crash
loses one. NAME.csv is the result of all lines, for `--labels`; it is written again after decisions, and at the next
start where that did not happen.
"""

import errno
import json
import os
import threading
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from kit.errors import DataError, KitError, OutputError
from kit.files import cannot_write, check_parent, write_text
from kit.tasks.text import SEPARATOR

ACTIONS = ("label", "keep", "drop", "undo")
DROPPED = "out"  # the split of a row that is neither trained on nor measured
COLUMNS = ["path", "label", "split", "group", "old_label", "action", "reason", "when"]


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
    """All decisions of a table, in the order in which they were made, and by the path of the image."""

    def __init__(self):
        self.log: list[Decision] = []
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

    def last(self, among: Container[str]) -> str | None:
        """The image, one of `among`, that was decided last and is not undone; None where there is none."""
        undone: Counter[str] = Counter()
        for one in reversed(self.log):
            if one.action == "undo":
                undone[one.path] += 1
            elif undone[one.path]:
                undone[one.path] -= 1
            elif one.path in among:
                return one.path
        return None

    def label(self, path: str, label: str) -> str:
        """The label of an image after its decision; `label` is the one before."""
        now = self.current(path)
        return now.label if now and now.action == "label" else label

    def dropped(self, path: str) -> bool:
        """Whether an image is to be left out."""
        now = self.current(path)
        return bool(now) and now.action == "drop"

    def _apply(self, decision: Decision) -> None:
        self.log.append(decision)
        self.decisions.setdefault(decision.path, []).append(decision)


class Journal(Decisions):
    """The decisions of one CSV file about the images of one folder.

    Only one process can have it open. Raises `KitError` for the second one, for decisions about another folder, and for
    a CSV that is not the result of decisions, which would be replaced.
    """

    def __init__(self, csv: Path, folder: str | Path = ""):
        super().__init__()
        check_parent(csv)
        self.csv, self.path, self.folder = csv, csv.with_suffix(".jsonl"), str(folder)
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
        try:
            self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _read(self) -> None:
        if not self.path.exists():
            if self.csv.exists():
                problem = f"{self.csv} was not written by kit clean: there is no {self.path.name} beside it"
                raise OutputError(problem, fix="say another --out, or move that file away")
            return
        for number, value in read_lines(self.path):
            try:
                self._read_line(value)
            except (ValueError, TypeError) as error:
                problem = f"{self.path}: line {number} is no decision ({error})"
                raise DataError(problem, fix="remove that line, or say another --out") from error

    def _begin(self) -> None:
        if not self.path.exists():
            append_line(self.path, {"folder": self.folder})

    def _read_line(self, value: Any) -> None:
        if isinstance(value, dict) and set(value) == {"folder"}:
            if self.folder not in ("", value["folder"]):
                problem = f"{self.path} has decisions about {value['folder']}, not about {self.folder}"
                fix = "say another --out; or, if the folder was moved, write the new one into the file's first line"
                raise DataError(problem, fix=fix)
            self.folder = value["folder"]
            return
        decision = Decision(**value)
        if decision.action not in ACTIONS or not all(isinstance(part, str) for part in asdict(decision).values()):
            raise ValueError(f"action {decision.action!r}")
        self._apply(decision)

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
            decision = replace(decision, when=decision.when or datetime.now(UTC).isoformat(timespec="milliseconds"))
            try:
                self._begin()
                append_line(self.path, asdict(decision))
            except OutputError as error:
                raise OutputError(error.problem, fix="make room; the decision was not made") from error
            self._apply(decision)
            return self.count(decision.path)

    def write_csv(self, table: pd.DataFrame, names: Sequence[str] = ()) -> None:
        """Write the CSV, atomically, for a table of path (relative), label, split and group.

        names: of the numbers in a label, each of which gets a column of its own.
        """
        self._begin()
        rows = []
        for path, label, split, group in table[["path", "label", "split", "group"]].itertuples(index=False):
            now = self.current(path)
            told = (now.action, now.reason, now.when) if now else ("", "", "")
            split = DROPPED if self.dropped(path) else split
            rows.append((path, self.label(path, label), split, group, label, *told))
        frame = pd.DataFrame(rows, columns=COLUMNS)
        for place, name in enumerate(names):
            if name not in COLUMNS:
                frame[name] = [label.split(SEPARATOR)[place] for label in frame["label"]]
        write_text(self.csv, frame.to_csv(index=False, lineterminator="\n"))


def append_line(path: Path, value: Any) -> None:
    """Append a value as a line of JSON that is on the disk (fsync) when this returns, or not at all (`OutputError`)."""
    line = json.dumps(value).encode() + b"\n"
    try:
        with path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line of JSON. A last line that a crash cut off was never confirmed: it is
    removed from the file. Raises `DataError` for other lines that are no JSON."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line) if line.strip() else None
        except ValueError as error:
            if number < len(lines):
                raise DataError(f"{path}: line {number} is no JSON ({error})", fix="remove that line") from error
            with path.open("rb+") as file:
                file.truncate(file.seek(0, os.SEEK_END) - len(line))
            return
        if value is not None:
            yield number, value
    if lines[-1]:  # an editor left out the end of the last line
        with path.open("ab") as file:
            file.write(b"\n")
