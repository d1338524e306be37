"""Move files as decided: dropped images into a folder beside, corrected ones into the folder of their new class.

moves = planned_moves(Path("photos"), Path("photos-labels.csv"), by_folder=True); print(moves.lines()); moves.run()

Each move is written to NAME-moves.jsonl before it is made, so that `moves_back` undoes all of them, also after a crash.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.clean.decisions import DROPPED
from kit.errors import DataError, OutputError

MOST_SHOWN = 5


@dataclass(frozen=True)
class Moves:
    """Moves (from, to) of files. log: where they are written; None where they undo those of a log, `undone`."""

    moves: list[tuple[Path, Path]]
    log: Path | None = None
    undone: Path | None = None

    def lines(self) -> list[str]:
        """A summary: how many files move from which folder to which, and some of them."""
        if not self.moves:
            return ["no file has to be moved"]
        counts = Counter((old.parent, new.parent) for old, new in self.moves)
        lines = [f"{count} files: {old} -> {new}" for (old, new), count in counts.most_common()]
        shown = [f"  {old.name} -> {new}" for old, new in self.moves[:MOST_SHOWN]]
        more = len(self.moves) - len(shown)
        return [f"{len(self.moves)} files move:", *lines, *shown, *([f"  and {more} more"] if more else [])]

    def run(self) -> str:
        """Move the files; returns a line about it. Raises `OutputError` before the first move where one cannot be made.

        No file is ever overwritten.
        """
        for old, new in self.moves:
            if not old.is_file():
                raise OutputError(f"{old} is not there any more", fix="run kit clean again")
            if new.exists():
                raise OutputError(f"{new} is there already", fix="rename one of the two files")
        for old, new in self.moves:
            if self.log:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([str(old), str(new)]) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
        if self.undone:
            self.undone.unlink()
            return f"{len(self.moves)} files are back where they were"
        return f"{len(self.moves)} files moved; undo it with --undo-apply ({self.log})"


def log_of(csv: Path) -> Path:
    """The log of the moves of a CSV."""
    return csv.with_name(f"{csv.stem}-moves.jsonl")


def planned_moves(folder: Path, csv: Path, by_folder: bool) -> Moves:
    """The moves for the decisions in `csv`. by_folder: whether labels are the names of folders; only then corrected
    images move. Raises `DataError` where there is no such file."""
    if not csv.is_file():
        raise DataError(f"{csv} is not there", fix="decide about images first: kit clean FOLDER")
    rows = pd.read_csv(csv, dtype=str, keep_default_na=False)
    beside = folder.with_name(f"{folder.name}-dropped")
    moves = []
    for row in rows.itertuples():
        old = folder / row.path
        if row.action == "drop" and row.split == DROPPED:
            moves.append((old, beside / row.path))
        elif row.action == "label" and by_folder and row.label != old.parent.name:
            moves.append((old, old.parent.with_name(row.label) / old.name))
    return Moves([(old, new) for old, new in moves if old.is_file()], log_of(csv))


def moves_back(csv: Path) -> Moves:
    """The moves that undo those in the log of `csv`, last first."""
    log = log_of(csv)
    if not log.is_file():
        raise DataError(f"{log} is not there: nothing was moved", fix="give the same folder and --out as for --apply")
    made = [tuple(map(Path, json.loads(line))) for line in log.read_text(encoding="utf-8").splitlines()]
    return Moves([(new, old) for old, new in reversed(made) if new.is_file()], undone=log)
