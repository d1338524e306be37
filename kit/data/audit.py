"""Check a data set before training: sizes, duplicates, files left out, and problems that affect the result.

kit check FOLDER
"""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.folders import left_out_lines, split_name
from kit.data.image_quality import has_quality_columns, quality_notes
from kit.data.label_stats import Finding, about_classes, about_names, about_numbers, class_counts, number_facts
from kit.data.listing import EMPTY_FOLDER, NOT_IMAGE, OUTSIDE, OWN_OUTPUT
from kit.data.splits import DUPLICATES
from kit.errors import some_of
from kit.intervals import too_few
from kit.tasks import of
from kit.tasks.text import CLASSIFICATION, readable, shown
from kit.tasks.training import training_of

FEW_STEPS = 10
NOTES = (NOT_IMAGE, EMPTY_FOLDER, OWN_OUTPUT)


@dataclass(frozen=True)
class Check:
    """The result of `check`; `lines()` for people, `to_json()` for programs.

    splits: the number of images in each split. classes: the same for each class; an image with several classes counts
    in each. numbers: of regression, minimum, mean and maximum of each target. left_out: path and reason of each file.
    """

    images: int
    splits: dict[str, int]
    classes: dict[str, dict[str, int]]
    findings: list[Finding]
    left_out: list[dict[str, str]]
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def errors(self) -> list[str]:
        """The findings for which training is refused."""
        return [finding.text for finding in self.findings if finding.severity == "error"]

    def lines(self) -> list[str]:
        """The report as lines of text: counts, then findings, errors first."""
        sizes = ", ".join(
            f"{self.splits[split]} {split}" for split in ("train", "valid", "test") if split in self.splits
        )
        what = f"with {len(self.numbers)} numbers each" if len(self.numbers) > 1 else "with a number each"
        lines = [f"{self.images} images {what if self.numbers else f'of {len(self.classes)} classes'}: {sizes}"]
        lines += self._class_lines() + self._number_lines()
        for severity in ("error", "warning", "note"):
            lines += [f"  {severity}: {finding.text}" for finding in self.findings if finding.severity == severity]
        return lines

    def _class_lines(self) -> list[str]:
        wide = max((len(label) for label in self.classes), default=0)
        largest = sorted(self.classes, key=lambda label: -sum(self.classes[label].values()))
        lines = [f"  {label:<{wide}}  {sum(self.classes[label].values()):>6}" for label in largest[:10]]
        return lines if len(largest) <= 10 else [*lines, f"  ... and {len(largest) - 10} more classes"]

    def _number_lines(self) -> list[str]:
        return [
            f"  {name}: from {shown(facts['min'])} to {shown(facts['max'])}, {shown(facts['mean'])} on average"
            for name, facts in self.numbers.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        findings = [{"severity": finding.severity, "text": finding.text} for finding in self.findings]
        values = {"images": self.images, "splits": self.splits, "classes": self.classes, "findings": findings}
        return values | {"left_out": self.left_out} | ({"numbers": self.numbers} if self.numbers else {})


def check(table: pd.DataFrame, batch: int | None = None, size: int = 224) -> Check:
    """Check a table of `data.table`: classes, splits, duplicates, files left out; of `data.survey` also image quality.

    batch: images a batch, to check that the training images fill some batches. size: input size of the network in
    pixels a side.
    """
    task = table.attrs.get("task", CLASSIFICATION)
    splits = {str(split): int(count) for split, count in table["split"].value_counts().items()}
    classes, numbers = class_counts(table, task), number_facts(table)
    findings = [*about_classes(table, classes, task), *about_numbers(table), *_about_folders(table)]
    findings += [*_about_duplicates(table), *_about_held_groups(table), *about_files(table), *about_names(table)]
    findings += _about_size(table, batch, task)
    if has_quality_columns(table):
        findings += [Finding("note", text) for text in quality_notes(table, size)]
    return Check(len(table), splits, classes, findings, table.attrs.get("left_out", []), numbers)


def _about_duplicates(table: pd.DataFrame) -> list[Finding]:
    grouped = table[table["group"].str.startswith(DUPLICATES)]
    findings = []
    if len(grouped):
        count = grouped["group"].nunique()
        groups = "1 group" if count == 1 else f"{count} groups"
        text = f"{groups} of duplicates ({len(grouped)} images), each kept on one side of the split"
        findings.append(Finding("note", text))
    mixed = [rows for _, rows in grouped.groupby("group") if rows["label"].nunique() > 1]
    if mixed:
        names = "; ".join(
            " = ".join(f"{Path(r.path).name} ({r.label})" for r in rows.itertuples()) for rows in mixed[:5]
        )
        groups = "1 group of duplicates has" if len(mixed) == 1 else f"{len(mixed)} groups of duplicates have"
        findings.append(Finding("warning", f"{groups} several labels: {names}"))
    return findings


def _about_held_groups(table: pd.DataFrame) -> list[Finding]:
    """Findings about images in no split, because another of their group is held out, or because the table says so."""
    held = set(table["group"][table["split"].isin(["valid", "test"])]) - {""}
    out = table[table["split"] == "out"]
    divided = sorted({group for group in out["group"] if group in held and not group.startswith(DUPLICATES)})
    reasons = dict.fromkeys(divided, f"other images of their group are held out; groups: {some_of(divided)}")
    for group in held.difference(divided):
        reasons[group] = "copies of held-out images"
    left_out = [(row.path, reasons.get(row.group, "the table says so")) for row in out.itertuples()]
    return [Finding("warning", line) for line in left_out_lines(left_out).values()]


def about_files(table: pd.DataFrame) -> list[Finding]:
    """Findings about files left out: the classes that have lost all their files, and a line for each other reason."""
    task = training_of(table.attrs.get("task", CLASSIFICATION))
    classes, beside = task.count(table["label"]), _beside_classes(table)
    lost, others = defaultdict(list), []
    for entry in table.attrs.get("left_out", []):
        path, reason = Path(entry["path"]), entry["reason"]
        names = task.classes(entry["label"]) if "label" in entry else []
        folder = path if reason == EMPTY_FOLDER else path.parent
        if reason in (EMPTY_FOLDER, NOT_IMAGE, OUTSIDE) and beside(folder):
            names = [folder.name]
        gone = [name for name in names if name not in classes]
        for name in gone:
            lost[name].append(reason)
        others += [] if gone else [(path, reason)]
    texts = []
    for name, reasons in sorted(lost.items()):
        count = f"{len(reasons)} files: " if len(reasons) > 1 else ""
        texts.append(f"{name} ({count}{some_of(sorted(set(reasons)))})")
    findings = [Finding("warning", f"classes without a usable image: {some_of(texts)}")] if texts else []
    lines = left_out_lines(others)
    return findings + [Finding("note" if reason in NOTES else "warning", line) for reason, line in lines.items()]


def _beside_classes(table: pd.DataFrame) -> Callable[[Path], bool]:
    """Whether a folder lies beside class folders and holds none, so that it is a class without images."""
    folders = {Path(path).parent for path in table["path"]} if table.attrs.get("label") == "folder" else set()
    beside, above = {path.parent for path in folders}, folders.union(*(path.parents for path in folders))
    return lambda folder: folder.parent in beside and folder not in above


def _about_folders(table: pd.DataFrame) -> list[Finding]:
    """Findings about splits given by folders or a CSV, and about folders as classes."""
    findings, given = [], table.attrs.get("split") == "given"
    if folders := table.attrs.get("folders"):
        named = [folder if folder == split else f"{folder} ({split})" for folder, split in folders.items()]
        chosen = "" if given else "; the validation images are chosen from the training images"
        findings.append(Finding("note", f"splits by folders: {some_of(named)}{chosen}"))
    elif given:
        findings.append(Finding("note", "the validation images are those that the table gives"))
    if table.attrs.get("label") != "folder":
        return findings
    if nested := table.attrs.get("nested"):
        inner, above = next(iter(nested.values())), sorted({re.escape(Path(base).name) for base in nested})
        pattern = f"/{above[0] if len(above) == 1 else '(?:' + '|'.join(above) + ')'}/([^/]+)/"
        text = f"the label is the innermost folder, as in {inner}; for the outermost: --label '{pattern}'"
        findings.append(Finding("note", text))
    for label in sorted(set(table["label"])):
        if split_name(label)[0] and not split_name(label)[1]:
            text = f"class {label!r} is named like a split; it is one only beside a folder train with class folders"
            findings.append(Finding("note", text))
    for (label, _), rows in table.groupby(["label", "split"]):
        folders = sorted({readable(str(Path(path).parent)) for path in rows["path"]})
        if len(folders) > 1 and not given:
            text = f"class {label!r} is made up of {len(folders)} folders of that name: {some_of(folders)}"
            findings.append(Finding("warning", text))
    return list({finding.text: finding for finding in findings}.values())


def _about_size(table: pd.DataFrame, batch: int | None, task: str) -> list[Finding]:
    train, held = (int((table["split"] == side).sum()) for side in ("train", "valid"))
    findings = []
    if batch and train < batch:
        text = f"{train} training images do not fill one batch of {batch}: say --batch {max(2, train // 4)}"
        findings.append(Finding("error", text))
    elif batch and train // batch < FEW_STEPS:
        steps = f"{train // batch} steps" if train // batch > 1 else "1 step"
        text = f"only {steps} an epoch with batches of {batch}: try --batch {max(2, min(16, train // FEW_STEPS))}"
        findings.append(Finding("warning", f"{text}, and more --epochs"))
    if not held:
        findings.append(Finding("error", "no validation image: the error cannot be measured"))
    elif small := too_few(held, is_rate=of(task).is_rate):
        findings.append(Finding("warning", small, of_validation=True))
    return findings
