"""Move files as decided: dropped images into a folder beside, corrected ones into the folder of their new class.

moves = planned_moves(Path("photos"), journal, by_folder=True); print(moves.lines()); moves.run()

Each move is written to NAME-moves.jsonl before it is made, so that `moves_back` undoes all of them, also after a crash.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.clean.decisions import Journal, append_line, read_lines
from kit.data.sources import find_files
from kit.errors import DataError, OutputError
from kit.files import cannot_write, write_text

MOST_SHOWN = 5


@dataclass(frozen=True)
class Moves:
    """Moves (from, to) of files that the decisions of `journal` ask for. back: whether they undo those of the log."""

    moves: list[tuple[Path, Path]]
    journal: Journal
    back: bool = False

    def lines(self) -> list[str]:
        """A summary: how many files move from which folder to which, and some of them."""
        if not self.moves:
            return ["no file has to be moved"]
        counts = Counter((old.parent, new.parent) for old, new in self.moves)
        lines = [f"{_files(count)}: {old} -> {new}" for (old, new), count in counts.most_common()]
        shown = [f"  {old.name} -> {new}" for old, new in self.moves[:MOST_SHOWN]]
        more = len(self.moves) - len(shown)
        verb = "moves" if len(self.moves) == 1 else "move"
        return [f"{_files(len(self.moves))} {verb}:", *lines, *shown, *([f"  and {more} more"] if more else [])]

    def run(self) -> str:
        """Move the files, and write their new places into the CSV; returns a line about it. No file is overwritten.

        Raises `OutputError` before the first move where one cannot be made.
        """
        log = log_of(self.journal)
        for old, new in self.moves:
            if not old.is_file():
                raise OutputError(f"{old} is not there any more", fix="run kit clean again")
            try:
                new.parent.mkdir(parents=True, exist_ok=True)
                taken = os.path.lexists(new)
            except OSError as error:
                raise cannot_write(new, error) from error
            if taken:
                raise OutputError(f"{new} is there already", fix="move or rename that file")
        for old, new in self.moves:
            if not self.back:
                append_line(log, [str(old), str(new)])
            try:
                old.rename(new)
            except OSError as error:
                raise cannot_write(new, error) from error
        self._correct_csv(_logged(log))
        if self.back:
            log.unlink()
            return f"{_files(len(self.moves))} moved back"
        return f"{_files(len(self.moves))} moved; undo it with --undo-apply ({log})"

    def _correct_csv(self, logged: dict[Path, Path]) -> None:
        """Replace the paths of moved files in the CSV, so that `--labels` finds them."""
        if not self.journal.csv.is_file():
            return
        folder, places = Path(self.journal.folder), logged
        if self.back:
            places = {new: old for old, new in logged.items()}
        rows = pd.read_csv(self.journal.csv, dtype=str, keep_default_na=False)
        found = [Path(os.path.normpath(path)) for path in find_files(rows["path"], [folder])]
        rows["path"] = [
            Path(os.path.relpath(places[old], folder)).as_posix() if old in places and not old.exists() else name
            for name, old in zip(rows["path"], found, strict=True)
        ]
        write_text(self.journal.csv, rows.to_csv(index=False, lineterminator="\n"))


def log_of(journal: Journal) -> Path:
    """The log of the moves that the decisions of a journal led to."""
    return journal.csv.with_name(f"{journal.csv.stem}-moves.jsonl")


def planned_moves(folder: Path, journal: Journal, by_folder: bool) -> Moves:
    """The moves for the decisions in `journal` about images in `folder`; images elsewhere stay where they are.

    by_folder: whether labels are the names of folders; only then corrected images move. Where the new folder has a file
    of that name, the moved one gets a number. Raises `DataError` for a class that cannot be the name of a folder.
    """
    beside = folder.with_name(f"{folder.name}-dropped")
    decided = [one for path in journal.decisions if (one := journal.current(path))]
    files = [Path(os.path.normpath(path)) for path in find_files([one.path for one in decided], [folder])]
    moves, taken = [], set()
    for one, old in zip(decided, files, strict=True):
        if not old.is_relative_to(folder) or not old.is_file():
            continue
        if one.action == "drop":
            new = beside / old.relative_to(folder)
        elif one.action == "label" and by_folder and one.label != old.parent.name:
            new = old.parent.parent / _folder_name(one.label) / old.name
        else:
            continue
        new = _free(new, taken)
        taken.add(new)
        moves.append((old, new))
    return Moves(moves, journal)


def moves_back(journal: Journal) -> Moves:
    """The moves that undo those in the log of `journal`, last first."""
    log = log_of(journal)
    if not log.is_file():
        raise DataError(f"{log} is not there: nothing was moved", fix="give the same folder and --out as for --apply")
    made = reversed(_logged(log).items())
    return Moves([(new, old) for old, new in made if new.is_file()], journal, back=True)


def _logged(log: Path) -> dict[Path, Path]:
    """The new path of each file by its old one; a move that a crash stopped may be there twice."""
    return {Path(old): Path(new) for _, (old, new) in read_lines(log)} if log.is_file() else {}


def _folder_name(label: str) -> str:
    if label in (".", "..") or {"/", "\\"} & set(label):
        fix = "give another class on the page; or keep the files and train with --labels"
        raise DataError(f"the class {label!r} cannot be the name of a folder", fix=fix)
    return label


def _free(path: Path, taken: set[Path]) -> Path:
    """The path, or one with a number before the suffix, that is neither in `taken` nor on disk."""
    found, number = path, 1
    while found in taken or os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
