"""Split images into training and validation: repeatable by the seed, and without dividing groups.

rows["split"] = assign_splits(rows, "stratified", valid=0.2, seed=42)
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from kit.data.duplicates import join_sets
from kit.errors import DataError

DUPLICATES = "duplicates "


def join_groups(given: Sequence[str], duplicates: Iterable[Sequence[int]]) -> list[str]:
    """A group name for each row ('' for none), from given groups and from duplicates; overlapping groups are merged.

    given: a name for each row, '' for none. duplicates: lists of row numbers.
    """
    same_name: dict[str, list[int]] = {}
    for row, name in enumerate(given):
        if name:
            same_name.setdefault(name, []).append(row)
    groups = [*same_name.items(), *((f"{DUPLICATES}{number}", rows) for number, rows in enumerate(duplicates, 1))]
    links = [(rows[0], row) for _, rows in groups for row in rows]
    sets = join_sets(np.arange(len(given)), *np.array(links, int).reshape(-1, 2).T).tolist()
    names: dict[int, str] = {}
    for name, rows in groups:
        names.setdefault(sets[rows[0]], name)
    return [names.get(label, "") for label in sets]


def assign_splits(rows: pd.DataFrame, how: str, valid: float, seed: int) -> list[str]:
    """For each row of a table (columns label, split as given or '', group): "train", "valid", "test" or "out".

    A given split is kept. Without given validation images they are chosen: "stratified" takes the share `valid` of each
    class, "random" exactly the rows of fastai's `RandomSplitter(valid, seed)`, "grouped" whole groups. Duplicates that
    would be in both go to training; where the split was given, the training copies become "out" instead.
    """
    splits = rows["split"].tolist()
    if "valid" not in splits:
        if how == "given":
            raise DataError(
                "split is 'given', but no image is given for validation",
                fix="add a valid/ folder or a column split, or choose --split stratified",
            )
        free = [row for row, split in enumerate(splits) if split not in ("test", "out")]
        chosen = CHOOSERS[how](rows.iloc[free].reset_index(drop=True), valid, seed)
        for row in chosen:
            splits[free[row]] = "valid"
    return _leave_out_copies([split or "train" for split in splits], rows["group"].tolist())


def _leave_out_copies(splits: list[str], groups: list[str]) -> list[str]:
    """Training rows whose group also validates or tests, and validation rows whose group tests, become "out"."""
    held = {side: {g for g, s in zip(groups, splits, strict=True) if g and s == side} for side in ("valid", "test")}
    taboo = {"train": held["valid"] | held["test"], "valid": held["test"]}
    return ["out" if group in taboo.get(split, ()) else split for split, group in zip(splits, groups, strict=True)]


def _units(rows: pd.DataFrame) -> Iterator[tuple[str, list[int]]]:
    """Units that a split may not divide, groups and single rows, each as (most frequent label, row numbers)."""
    members: dict[str, list[int]] = {}
    for row, group in enumerate(rows["group"]):
        members.setdefault(group or f"\0{row}", []).append(row)
    labels = rows["label"].tolist()
    for numbers in members.values():
        own = [labels[row] for row in numbers]
        yield max(sorted(set(own)), key=own.count), numbers


def _by_class(rows: pd.DataFrame, seed: int) -> Iterator[tuple[int, list[list[int]]]]:
    """For each class, sorted by name: its number of images, and its units in random order."""
    generator = np.random.default_rng(seed)
    units: dict[str, list[list[int]]] = {}
    for label, numbers in _units(rows):
        units.setdefault(label, []).append(numbers)
    for label in sorted(units):
        order = generator.permutation(len(units[label]))
        yield sum(map(len, units[label])), [units[label][index] for index in order]


def _stratified(rows: pd.DataFrame, valid: float, seed: int) -> list[int]:
    """The share `valid` of each class, at least one unit where the class has two."""
    chosen = []
    for count, units in _by_class(rows, seed):
        wanted = max(1, round(valid * count)) if len(units) > 1 else 0
        taken = 0
        for unit in units[: len(units) - 1]:
            if taken < wanted and (taken == 0 or taken + len(unit) <= wanted):
                chosen += unit
                taken += len(unit)
    return chosen


def _random(rows: pd.DataFrame, valid: float, seed: int) -> list[int]:
    """The rows that fastai's `RandomSplitter` chooses; duplicates that it would divide go to training."""
    if any(group and not group.startswith(DUPLICATES) for group in rows["group"]):
        return _grouped(rows, valid, seed)
    chosen = set(_drawn(len(rows), seed)[: int(valid * len(rows))])
    whole = [unit for _, unit in _units(rows) if chosen.issuperset(unit)]
    return [row for unit in whole for row in unit]


def _grouped(rows: pd.DataFrame, valid: float, seed: int) -> list[int]:
    """Whole groups in random order until the share `valid` is reached; a single row is a group of one."""
    if not any(rows["group"]):
        raise DataError("split is 'grouped', but there are no groups", fix="give a CSV with a column group (--labels)")
    units = [unit for _, unit in _units(rows)]
    chosen: list[int] = []
    for index in _drawn(len(units), seed)[: len(units) - 1]:
        if len(chosen) < round(valid * len(rows)):
            chosen += units[index]
    return chosen


def _drawn(count: int, seed: int) -> list[int]:
    """0 to count - 1 in the order of fastai's splitter; torch's global random state is not changed."""
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


CHOOSERS = {"stratified": _stratified, "random": _random, "grouped": _grouped}


def folds(rows: pd.DataFrame, count: int, seed: int, how: str = "stratified") -> list[list[str]]:
    """Splits for cross-validation: `count` lists of "train" and "valid"; each image is in "valid" exactly once.

    how: "stratified" distributes the images of each class evenly; "random" and "grouped" distribute all images evenly,
    and "grouped" needs groups. Groups are never divided. Raises `DataError` where there are fewer units (groups and
    single images) than folds, with "stratified" in any class.
    """
    side = [0] * len(rows)
    for units in _dealt(rows, count, seed, how):
        filled = [0] * count
        for unit in sorted(units, key=len, reverse=True):
            fold = filled.index(min(filled))
            filled[fold] += len(unit)
            for row in unit:
                side[row] = fold
    return [["valid" if fold == number else "train" for fold in side] for number in range(count)]


def _dealt(rows: pd.DataFrame, count: int, seed: int, how: str) -> Iterator[list[list[int]]]:
    """The units to distribute together, in random order: those of a class, or all."""
    if how == "grouped" and not any(rows["group"]):
        raise DataError("folds are 'grouped', but there are no groups", fix="give a CSV with a column group (--labels)")
    if how == "stratified":
        packs = [(f"a class has {images} images", units) for images, units in _by_class(rows, seed)]
    else:
        units = [unit for _, unit in _units(rows)]
        packs = [(f"there are {len(rows)} images", [units[index] for index in _drawn(len(units), seed)])]
    for what, units in packs:
        if len(units) < count:
            problem = f"{what} in {len(units)} groups; {count} folds want one each"
            raise DataError(problem, fix="fewer folds, or more images")
        yield units


def inner_folds(rows: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """The fold, 0 to count - 1, in which each row is held out in a cross-validation among training images.

    The images of each class are distributed evenly and no group is divided. The only image or group of a class is in no
    fold (-1), because the class could not be learned without it.
    """
    fold = np.full(len(rows), -1)
    for start, (_, units) in enumerate(_by_class(rows, seed)):
        for place, unit in enumerate(units if len(units) > 1 else []):
            fold[unit] = (start + place) % count
    return fold
