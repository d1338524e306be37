"""Label rules: the label of a file by its folder, by a pattern in its name, or by a function of its path.

label_rule("is_cat")(Path("Birman_12.jpg"))           # 'cat'
label_rule("^(.*)_[0-9]+")(Path("beagle_7.jpg"))      # 'beagle'
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from kit.errors import DataError

LabelRule = Callable[[Path], str]


def is_cat(path: str | Path) -> bool:
    """Oxford Pets' convention: a cat's file name starts with a capital letter. (As a label: "cat" or "dog".)"""
    return Path(path).name[:1].isupper()


def parent_folder(path: str | Path) -> str:
    """The name of the folder that the file lies in."""
    return Path(path).parent.name


# The names of these rules in a recipe and in a bundle.
is_cat.label_name = "is_cat"
parent_folder.label_name = "folder"


@dataclass(frozen=True)
class Pattern:
    """A label rule: the group of a regular expression, searched in the file name, or in the path if it has a '/'."""

    expression: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.expression).groups
        except re.error as error:
            raise DataError(f"label pattern {self.expression!r}: {error}", fix="see Python's re module") from error
        if groups != 1:
            problem = f"label pattern {self.expression!r} has {groups} groups; exactly one was expected"
            raise DataError(problem, fix="put parentheses around the label, like '^(.*)_[0-9]+'")

    def __call__(self, path: str | Path) -> str:
        """The label of `path`; `DataError` where the pattern does not match."""
        where = Path(path).as_posix() if "/" in self.expression else Path(path).name
        found = re.search(self.expression, where)
        if not found:
            raise DataError(f"{where} does not match {self.expression!r}", fix="widen the pattern or rename the file")
        return found.group(1)

    @property
    def label_name(self) -> str:
        """The rule in a recipe: the expression."""
        return self.expression


def pattern(expression: str) -> Pattern:
    """The label rule of a regular expression with one group; like fastai's `RegexLabeller`, with a name for recipes."""
    return Pattern(expression)


def label_rule(label: str | Callable[[Any], Any]) -> LabelRule:
    """The function from path to label text for a recipe's `label`.

    label: "folder", "is_cat", "module:function", a pattern with one group, or a function of the path. The result of a
        function is converted to text (True to "True"). A function that raises or returns None gives a `DataError`.
    """
    if label == "folder" or label is parent_folder:
        return parent_folder
    if label == "is_cat" or label is is_cat:
        return lambda path: "cat" if is_cat(path) else "dog"
    if not isinstance(label, str):
        return _text_of(label)
    return label_rule(_imported(label)) if is_function_name(label) else _text_of(Pattern(label))


def is_function_name(label: str) -> bool:
    """Whether `label` names a function to import, like "module:function"."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[\w.<>]+", label) is not None


def _text_of(function: Callable[[Any], Any]) -> LabelRule:
    def rule(path: Path) -> str:
        try:
            label = function(path)
        except DataError:
            raise
        except Exception as error:
            problem = f"the label function failed on {path.name} ({type(error).__name__}: {error})"
            raise DataError(problem, fix="return a label for every file") from error
        if label is None or label == "":
            raise DataError(f"the label rule gave {label!r} for {path.name}", fix="give a label to every file")
        return str(label)

    return rule


def _imported(name: str) -> Callable[[Any], Any]:
    module, function = name.split(":")
    try:
        return attrgetter(function)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        problem = f"the label function {name!r} cannot be imported ({error})"
        raise DataError(problem, fix="give --label anew, or run where that module can be imported") from error
