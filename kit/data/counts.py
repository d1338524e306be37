"""How many images each class has, or what the numbers are, and what of it would make training fail or mislead.

class_counts(table, "multilabel")                # {"cat": {"train": 40, "valid": 10}, ...}
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.errors import some_of
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION, classes_of, numbers_of

IMBALANCE = 10
SEPARATORS = (";", ",", "|", " ")
MANY_NUMBERS = 20
FAR = 6.0


@dataclass(frozen=True)
class Finding:
    """Something worth knowing: an "error" (training would fail or mislead), a "warning", or a "note"; and whether it is
    about which images validate, and so means nothing where all do in turn."""

    severity: str
    text: str
    of_validation: bool = False


def class_counts(table: pd.DataFrame, task: str) -> dict[str, dict[str, int]]:
    """The images of each class on each side of the split; an image of several classes counts in each of them."""
    if task == REGRESSION:
        return {}
    rows = table[["label", "split"]]
    if task == MULTILABEL:
        rows = rows.assign(label=rows["label"].map(classes_of)).explode("label").dropna()
    return {
        str(label): {str(split): int(count) for split, count in part["split"].value_counts().items()}
        for label, part in rows.groupby("label")
    }


def number_facts(table: pd.DataFrame, task: str) -> dict[str, dict[str, float]]:
    """Of each number of regression the least, mean, greatest and standard deviation."""
    if task != REGRESSION or table.empty:
        return {}
    values = numbers(table)
    facts = {"min": values.min(0), "mean": values.mean(0), "max": values.max(0), "std": values.std(0)}
    names = table.attrs["names"]
    return {name: {key: float(fact[place]) for key, fact in facts.items()} for place, name in enumerate(names)}


def numbers(table: pd.DataFrame) -> np.ndarray:
    """The numbers of a table of regression: float64 (images, targets)."""
    return np.array([numbers_of(label) for label in table["label"]])


def about_classes(table: pd.DataFrame, classes: dict[str, dict[str, int]], task: str) -> list[Finding]:
    """What is odd about the classes."""
    findings = []
    if len(classes) < (1 if task == MULTILABEL else 2):
        findings.append(Finding("error", f"one class only ({', '.join(classes)}): there is nothing to tell apart"))
    for label, splits in classes.items():
        if not splits.get("train"):
            findings.append(Finding("error", f"class {label!r} has no training image"))
        elif not splits.get("valid"):
            text = f"class {label!r} has no validation image: its errors go unseen"
            findings.append(Finding("warning", text, of_validation=True))
    sizes = {label: sum(splits.values()) for label, splits in classes.items()}
    if sizes and max(sizes.values()) > IMBALANCE * min(sizes.values()):
        largest, smallest = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
        text = f"imbalance: {sizes[largest]} of {largest!r} against {sizes[smallest]} of {smallest!r}"
        findings.append(Finding("warning", f"{text}; read the per-class table, not one figure alone"))
    letters = Counter(label.strip().casefold() for label in classes)
    for label in sorted(label for label in classes if letters[label.strip().casefold()] > 1):
        findings.append(Finding("warning", f"class {label!r} differs from another only in upper and lower case"))
    return findings + (_about_several(table, sizes) if task == MULTILABEL else _about_task(sizes))


def _about_several(table: pd.DataFrame, sizes: dict[str, int]) -> list[Finding]:
    """What is odd about labels of several classes: none at all, all images, or one class a label throughout."""
    findings, count = [], table["label"].map(lambda label: len(classes_of(label)))
    if none := int((count == 0).sum()):
        findings.append(Finding("note", f"{none} images have none of the classes"))
    for label, size in sizes.items():
        if size == len(table):
            findings.append(Finding("error", f"every image has the class {label!r}: there is nothing to learn of it"))
    if len(count) and count.max() == 1 and len(sizes) > 1:
        hint = next((mark for mark in SEPARATORS if any(mark in label for label in sizes)), None)
        text = "no image has two classes"
        text += f"; are they separated by {hint!r}? (--delimiter {hint!r})" if hint else ": one class each is --task"
        findings.append(Finding("warning", text if hint else f"{text} {CLASSIFICATION}"))
    return findings


def _about_task(sizes: dict[str, int]) -> list[Finding]:
    """Class names that look like numbers, or like several names: another task may be meant."""
    if len(sizes) >= MANY_NUMBERS and all(_is_number(label) for label in sizes):
        text = f"the {len(sizes)} classes are numbers ({some_of(sorted(sizes))}): if they measure something, "
        return [Finding("warning", f"{text}say --task {REGRESSION}")]
    for mark in SEPARATORS[:3]:
        both = [label for label in sizes if mark in label]
        if both and all(part.strip() in sizes for label in both for part in label.split(mark)):
            text = f"classes like {both[0]!r} are made of others: if an image can have several, say --task {MULTILABEL}"
            return [Finding("warning", text + (f" --delimiter {mark!r}" if mark != ";" else ""))]
    return []


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def about_numbers(table: pd.DataFrame) -> list[Finding]:
    """What is odd about the numbers of regression: all alike, far out, or beyond those of training."""
    findings, values = [], numbers(table)
    train, held = (values[(table["split"] == side).to_numpy()] for side in ("train", "valid"))
    if not len(train):
        return [Finding("error", "no training image")]
    for place, name in enumerate(table.attrs["names"]):
        column = values[:, place]
        if np.ptp(train[:, place]) == 0:
            findings.append(Finding("error", f"{name} is {train[0, place]:g} for every training image"))
            continue
        low, middle, high = np.quantile(column, [0.25, 0.5, 0.75])
        far = np.abs(column - middle) > FAR * max(high - low, 1e-12)
        if high > low and far.any():
            some = [f"{value:g}" for value in column[far]]
            findings.append(Finding("warning", f"{name}: far from all others: {some_of(some)}"))
        beyond = (held[:, place] < train[:, place].min()) | (held[:, place] > train[:, place].max())
        if beyond.any():
            images = "1 validation image lies" if beyond.sum() == 1 else f"{beyond.sum()} validation images lie"
            findings.append(Finding("note", f"{name}: {images} beyond the numbers of training"))
    return findings
