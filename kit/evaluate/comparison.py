"""Comparison of two runs on the same images: whether they differ, by how much, and how many images are needed to tell.

print(compare("runs/a", "runs/b"))

Only images that both runs held out are used. They are matched by SHA-256, so that they may lie in different folders.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kit.errors import DataError, some_of
from kit.intervals import Comparison, paired, pairs_needed

TABLE, PREDICTIONS = "table.csv", "predictions.csv"
SURE = 0.05


@dataclass(frozen=True)
class Compared:
    """The names of two runs, and their comparison on the images that both held out; errors are rates of those images.

    left_out: how many images only one of the two held out.
    """

    names: tuple[str, str]
    errors: tuple[float, float]
    comparison: Comparison
    left_out: tuple[int, int]

    @property
    def n(self) -> int:
        """How many images both held out."""
        return self.comparison.difference.n

    @property
    def differ(self) -> bool:
        """Whether the difference is significant: McNemar's test, p below 0.05."""
        return self.comparison.p < SURE

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The verdict in words, and its figures."""
        (a, b), (error_a, error_b), found = self.names, self.errors, self.comparison
        gap = found.difference
        lines = [
            self.verdict(),
            f"{a}: error rate {error_a:.4f}; {b}: {error_b:.4f}; both on the same {self.n} images",
            f"difference {gap.value:+.4f} (95 % {gap.low:+.4f} to {gap.high:+.4f}); "
            f"only {a} wrong: {found.only_a}, only {b} wrong: {found.only_b}; McNemar's exact test: p = {found.p:.3g}",
        ]
        if any(self.left_out):
            lines.append(f"left out, because only one run held them out: {self.left_out[0]} and {self.left_out[1]}")
        return lines

    def verdict(self) -> str:
        """Which is better; or that they cannot be told apart, and what that would take."""
        a, b = self.names
        if self.differ:
            better, worse = (a, b) if self.errors[0] < self.errors[1] else (b, a)
            return f"{better} is better than {worse} on these {self.n} images"
        text = f"{a} and {b} cannot be told apart on {self.n} images"
        needed = pairs_needed(self.comparison)
        if needed is None:
            return f"{text}: they have equally many wrong"
        return f"{text}; about {_rounded(max(needed, self.n + 1))} would be needed if they differ as they do here"

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        gap, found = self.comparison.difference, self.comparison
        return {
            "a": {"name": self.names[0], "error_rate": self.errors[0], "only_wrong": found.only_a},
            "b": {"name": self.names[1], "error_rate": self.errors[1], "only_wrong": found.only_b},
            "n": self.n,
            "difference": {"value": gap.value, "low": gap.low, "high": gap.high},
            "p": found.p,
            "differ": self.differ,
            "needed": pairs_needed(found),
            "verdict": self.verdict(),
        }


def _rounded(count: int) -> int:
    """Rounded up to two significant digits."""
    digits = max(0, len(str(count)) - 2)
    return -(-count // 10**digits) * 10**digits


def compare(run_a: str | Path, run_b: str | Path) -> Compared:
    """Compare two run folders on the images that both held out.

    Raises `DataError` where there are none, where one run was trained on one of them, or where an image has different
    labels in the two runs.
    """
    a, b = held_out(run_a), held_out(run_b)
    names = _names(Path(run_a), Path(run_b))
    both = a.merge(b, on="sha256", suffixes=("_a", "_b"))
    trained = [_trained(run) for run in (run_a, run_b)]
    if both.empty:
        raise DataError(_nothing_shared(names, a, b, trained), fix="train both with the same images, split and seed")
    _check_untouched(names, both, trained)
    _check_labels(names, both)
    wrong_a, wrong_b = ~both["correct_a"].astype(bool), ~both["correct_b"].astype(bool)
    errors = float(wrong_a.mean()), float(wrong_b.mean())
    left_out = len(a) - len(both), len(b) - len(both)
    return Compared(names, errors, paired(wrong_a.to_numpy(), wrong_b.to_numpy()), left_out)


def held_out(run: str | Path) -> pd.DataFrame:
    """The images that a run folder held out and predicted: path, label, correct, sha256, each image once."""
    predictions, table = (_read(Path(run) / name) for name in (PREDICTIONS, TABLE))
    known = table.drop_duplicates("path").set_index("path")["sha256"]
    if "correct" not in predictions:
        problem = f"{run} predicted numbers, and right and wrong are what is compared"
        raise DataError(problem, fix="compare the R2 and the errors that both runs' result.json hold")
    rows = predictions.assign(sha256=predictions["path"].map(known))
    if rows["sha256"].isna().any():
        names = some_of(rows.loc[rows["sha256"].isna(), "path"].tolist())
        raise DataError(f"{run}: predicted images that its table.csv does not hold: {names}", fix="train it again")
    return rows[["path", "label", "correct", "sha256"]].drop_duplicates("sha256")


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        problem = f"{path.parent} is no run folder: there is no {path.name}"
        raise DataError(problem, fix="give a folder that kit fine-tune wrote, like runs/pets")
    return pd.read_csv(path, dtype={"label": str, "sha256": str, "path": str}, keep_default_na=False)


def _names(a: Path, b: Path) -> tuple[str, str]:
    """The folders' names; where they are equal, the paths as given."""
    short = a.resolve().name, b.resolve().name
    return short if short[0] != short[1] else (str(a), str(b))


def _trained(run: str | Path) -> set[str]:
    table = _read(Path(run) / TABLE)
    return set(table.loc[table["split"] == "train", "sha256"])


def _nothing_shared(names: tuple[str, str], a: pd.DataFrame, b: pd.DataFrame, trained: list[set[str]]) -> str:
    (name_a, name_b), (seen_a, seen_b) = names, trained
    return (
        f"no image was held out by both {name_a} and {name_b}: {name_b} was trained on {a['sha256'].isin(seen_b).sum()}"
        f" of {name_a}'s {len(a)}, {name_a} on {b['sha256'].isin(seen_a).sum()} of {name_b}'s {len(b)}"
    )


def _check_untouched(names: tuple[str, str], both: pd.DataFrame, trained: list[set[str]]) -> None:
    """Raise `DataError` where a run was trained on a copy of an image that is compared."""
    for name, seen in zip(names, trained, strict=True):
        touched = both.loc[both["sha256"].isin(seen), "path_a"].tolist()
        if touched:
            problem = f"{name} was trained on {len(touched)} of the {len(both)} images: {some_of(touched)}"
            raise DataError(problem, fix="train it again: kit keeps copies of an image on one side")


def _check_labels(names: tuple[str, str], both: pd.DataFrame) -> None:
    other = both[both["label_a"] != both["label_b"]]
    if len(other):
        first = other.iloc[0]
        problem = (
            f"{len(other)} of {len(both)} images have different labels: {first['path_a']} is {first['label_a']!r} "
            f"in {names[0]} and {first['label_b']!r} in {names[1]}"
        )
        raise DataError(problem, fix="compare runs that learned the same labels")
