"""Statistics of labels: images of each class or ranges of numbers, and findings about problems for training.

class_counts(table, "multilabel")                # {"cat": {"train": 40, "valid": 10}, ...}
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.errors import some_of
from kit.tasks.text import numbers_of, readable
from kit.tasks.training import training_of

IMBALANCE = 10
FAR = 6.0


@dataclass(frozen=True)
class Finding:
    """A finding of the check. severity: "error" (training is refused), "warning" or "note". of_validation: that it is
    about the validation split, and so does not apply to cross-validation."""

    severity: str
    text: str
    of_validation: bool = False


def class_counts(table: pd.DataFrame, task: str) -> dict[str, dict[str, int]]:
    """The number of images of each class in each split; an image with several classes counts in each of them."""
    rows = table[["label", "split"]]
    rows = rows.assign(label=rows["label"].map(training_of(task).classes)).explode("label").dropna()
    return {
        str(label): {str(split): int(count) for split, count in part["split"].value_counts().items()}
        for label, part in rows.groupby("label")
    }


def number_facts(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The minimum, mean, maximum and standard deviation of each number of regression; {} where there are classes."""
    names = table.attrs.get("names")
    if not names or table.empty:
        return {}
    values = numbers(table)
    facts = {"min": values.min(0), "mean": values.mean(0), "max": values.max(0), "std": values.std(0)}
    return {name: {key: float(fact[place]) for key, fact in facts.items()} for place, name in enumerate(names)}


def numbers(table: pd.DataFrame) -> np.ndarray:
    """The numbers of a table of regression: float64 (images, targets)."""
    return np.array([numbers_of(label) for label in table["label"]])


def about_classes(table: pd.DataFrame, classes: dict[str, dict[str, int]], task: str) -> list[Finding]:
    """Findings about classes: too few, missing in a split, imbalanced, or with names that differ only in case."""
    findings, training = [], training_of(task)
    if len(classes) < training.fewest_classes:
        findings.append(Finding("error", f"one class only ({', '.join(classes)}): there is nothing to distinguish"))
    for label, splits in classes.items():
        if not splits.get("train"):
            findings.append(Finding("error", f"class {label!r} has no training image"))
        elif not splits.get("valid"):
            text = f"class {label!r} has no validation image: its errors are not measured"
            findings.append(Finding("warning", text, of_validation=True))
    sizes = {label: sum(splits.values()) for label, splits in classes.items()}
    if sizes and max(sizes.values()) > IMBALANCE * min(sizes.values()):
        largest, smallest = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
        text = f"imbalance: {sizes[largest]} of {largest!r} against {sizes[smallest]} of {smallest!r}"
        findings.append(Finding("warning", f"{text}; read the per-class table, not one figure alone"))
    letters = Counter(label.strip().casefold() for label in classes)
    for label in sorted(label for label in classes if letters[label.strip().casefold()] > 1):
        findings.append(Finding("warning", f"class {label!r} differs from another only in upper and lower case"))
    return findings + [Finding(*found) for found in training.findings(table["label"].tolist(), sizes)]


def about_names(table: pd.DataFrame) -> list[Finding]:
    """Findings about classes whose name came in several Unicode forms, file names that are not UTF-8, and columns that
    are named like a split and hold something else."""
    findings = []
    for column in table.attrs.get("unused", []):
        findings.append(Finding("note", f"column {column!r} is not used: its cells are not train, valid or test"))
    if spellings := table.attrs.get("spellings"):
        text = f"one class each, though written in two Unicode forms (NFC, and NFD as on macOS): {some_of(spellings)}"
        findings.append(Finding("note", text))
    if odd := [path for path in table["path"] if path != path.encode("utf-8", "ignore").decode()]:
        text = f"{len(odd)} paths are not UTF-8, and written with escapes, like {readable(odd[0])}; names from a Korean"
        text += " Windows become readable with: convmv -f CP949 -t UTF-8 -r --notest FOLDER"
        findings.append(Finding("note", text))
    return findings


def about_numbers(table: pd.DataFrame) -> list[Finding]:
    """Findings about numbers: constant in training, outliers, or in validation outside the range of training."""
    if not table.attrs.get("names"):
        return []
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
            images = "1 validation image is" if beyond.sum() == 1 else f"{beyond.sum()} validation images are"
            findings.append(Finding("note", f"{name}: {images} outside the range of the training numbers"))
    return findings
