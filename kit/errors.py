"""The whole vocabulary of kit's errors; every one says what is wrong, and how to mend it.

try: kit.fine_tune("photos")
except kit.KitError as error: print(error)
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class KitError(Exception):
    """What is wrong (naming the value and what was expected), and `fix`: what to do about it."""

    def __init__(self, problem: str, *, fix: str):
        super().__init__(f"{problem}\n  Fix: {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple:
        """So that an error in a worker process arrives as itself."""
        return _rebuilt, (type(self), self.problem, self.fix)


def _rebuilt(kind: type[KitError], problem: str, fix: str) -> KitError:
    return kind(problem, fix=fix)


class RecipeError(KitError, ValueError):
    """A recipe's field has a value that no training run can follow."""


class DataError(KitError):
    """A folder, a table, a label or a split that training cannot use."""


class ImageError(KitError):
    """A file that is not an image that kit opens."""


class ArchitectureError(KitError):
    """A network that is unknown, or whose layout kit cannot cut into body and head."""


class WeightsError(KitError):
    """Pretrained weights that are missing, damaged, or of another network."""


class FetchError(KitError):
    """A download that failed from every source, or that arrived damaged."""


class TrainingError(KitError):
    """Training that went wrong: its numbers are no longer finite."""


class BundleError(KitError):
    """A bundle that is incomplete, changed, or of another version."""


class OutputError(KitError):
    """A folder or file that cannot be written."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean "resnet18"?' where a known name is close to `name`, else ''."""
    close = get_close_matches(name, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first five names, and '...' where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line without colours; its kind where it says nothing."""
    return next(iter(COLOURS.sub("", str(error)).strip().splitlines()), type(error).__name__)
