"""Splits that folders give: train, Testing, seg_test, val2017, ...; what lies beside them is left out.

given = splits_by_folder(paths, Path("photos"), parent_folder)
given.splits[Path("photos/Training/cat/1.jpg")]               # "train"
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from kit.data.labels import LabelRule, parent_folder
from kit.errors import DataError, some_of

LETTER = r"[^\W\d_]"
FILLERS = r"(?:sets?|data|images?|imgs?|photos?|pictures?|files?|folders?|splits?)"
SPLIT_WORD = re.compile(
    rf"(?<!{LETTER})(?:(?P<train>train(?:ing|val)?)|(?P<valid>val(?:id(?:ation)?)?|dev(?:elopment)?)"
    rf"|(?P<test>tests?|testing|eval(?:uation)?|h[oe]ld[\W_]?out))(?={FILLERS}*(?!{LETTER}))"
)


@dataclass
class FolderSplits:
    """splits: of the images in split folders. left_out: images beside these, with the reason. folders: the split
    folders. nested: class folders that lie in other folders, by the folder that holds them all."""

    splits: dict[Path, str] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)
    folders: dict[Path, str] = field(default_factory=dict)
    nested: dict[Path, Path] = field(default_factory=dict)


@lru_cache(maxsize=10_000)
def split_name(name: str) -> tuple[str, str]:
    """The split that a name stands for, or "", and what else the name says: ("test", "seg") for "seg_test".

    Words like "set" and "images", and digits, say nothing: ("train", "") for "TrainImages" and "train2017".
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()
    found = {match.lastgroup or "" for match in SPLIT_WORD.finditer(text)}
    return found.pop() if len(found) == 1 else "", re.sub(rf"{FILLERS}|[\W\d_]", "", SPLIT_WORD.sub("", text))


def splits_by_folder(paths: Sequence[Path], folder: Path, rule: LabelRule) -> FolderSplits:
    """Find the folders in `folder` that divide its images into splits.

    These are a folder named train, and folders beside it that are named valid or test; or folders whose names differ in
    these words alone (seg_train, seg_test). Images beside them are left out, as are images of a valid or test folder
    without class folders. Where there is no train folder, images outside of valid and test are training images. A
    folder whose name is the label of all its images is a class. With the rule `parent_folder`, raises `DataError` for
    images beside class folders, and where the training images are not in class folders.
    """
    found = FolderSplits()
    _visit(folder, paths, rule, found, folder)
    outside = [path for path in paths if path not in found.splits and path not in found.left_out]
    if "train" in found.splits.values():
        trains = some_of([str(path.relative_to(folder)) for path, split in found.folders.items() if split == "train"])
        above = {parent for path in found.folders for parent in path.parents}
        for path in outside:
            name = next((f"{parent.name}: " for parent in reversed(path.parents) if parent not in above), "")
            found.left_out[path] = f"{name}beside {trains}, in no split"
    elif rule is parent_folder and outside:
        _note_nested(outside, _common(outside), found)
    return found


def _visit(where: Path, paths: Sequence[Path], rule: LabelRule, found: FolderSplits, top: Path | None) -> None:
    """Search `where`, which holds `paths`, for split folders. top: the whole folder, if all its images are here."""
    inner, loose = defaultdict(list), []
    for path in paths:
        if path.parent == where:
            loose.append(path)
        else:
            inner[path.parts[len(where.parts)]].append(path)
    if top and loose and rule is parent_folder and (inner or where == top):
        raise _no_class_folder(loose)
    sides = _sides(inner)
    flat = {name for name, side in sides.items() if all(_is_labelled(path, rule, side) for path in inner[name])}
    divided = {side for name, side in sides.items() if name not in flat}
    train_here = "train" in sides.values()
    if train_here and "train" not in divided and len(set(sides.values())) > 1 and rule is parent_folder:
        raise _no_class_folder([path for name in sorted(flat) for path in inner[name]])
    for name, below in inner.items():
        if name in sides and name not in flat and ("train" in divided or (top and not train_here)):
            _add_split(where / name, sides[name], below, rule, found)
        elif "train" not in divided:
            _visit(where / name, below, rule, found, top if len(inner) == 1 and not loose else None)
        elif name in sides:
            found.left_out |= dict.fromkeys(below, f"in {name} itself, not in a class folder")


def _sides(names: Iterable[str]) -> dict[str, str]:
    """The split of each folder that is named like one and like no other thing, or like another split but for it."""
    read = {name: split_name(name) for name in names}
    alike = defaultdict(set)
    for split, rest in read.values():
        alike[rest].add(split)
    return {name: split for name, (split, rest) in read.items() if split and (not rest or len(alike[rest] - {""}) > 1)}


def _is_labelled(path: Path, rule: LabelRule, split: str) -> bool:
    """Whether the label of an image is a name of `split`; False where it has no label."""
    try:
        return split_name(rule(path))[0] == split
    except DataError:
        return False


def _add_split(folder: Path, split: str, paths: Sequence[Path], rule: LabelRule, found: FolderSplits) -> None:
    found.folders[folder] = split
    found.splits |= dict.fromkeys(paths, split)
    if rule is not parent_folder:
        return
    base = _common(paths)
    loose = [path for path in paths if path.parent == base] if split_name(base.name)[0] == split else []
    if loose:
        raise _no_class_folder(loose)
    _note_nested(paths, base, found)


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in paths]))


def _note_nested(paths: Sequence[Path], base: Path, found: FolderSplits) -> None:
    inner = [path.parent for path in paths if path.parent.parent not in (base, base.parent)]
    found.nested |= {base: inner[0]} if inner else {}


def _no_class_folder(paths: Sequence[Path]) -> DataError:
    where, names = sorted({str(path.parent) for path in paths}), [path.name for path in paths]
    fix = 'put each image into the folder of its class, or say --label is_cat or a pattern like "^(.*)_[0-9]+"'
    problem = f"{len(paths)} images are in {some_of(where)} itself, not in a class folder: {some_of(names)}"
    return DataError(problem, fix=fix)


def left_out_lines(left_out: Iterable[tuple[str | Path, str]]) -> dict[str, str]:
    """For each reason why files were left out, a line with their number and some names."""
    by_reason = defaultdict(list)
    for path, reason in left_out:
        by_reason[reason].append(Path(path).name)
    return {reason: f"left out {len(names)} ({reason}): {some_of(names)}" for reason, names in by_reason.items()}
