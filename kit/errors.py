"""kit's exceptions. Each message says what is wrong, what was expected, and how to fix it.

try: kit.fine_tune("photos")
except kit.KitError as error: print(error)
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class KitError(Exception):
    """Base of all errors that kit raises on purpose. problem: the value and what was expected; fix: what to do."""

    def __init__(self, problem: str, *, fix: str):
        super().__init__(f"{problem}\n  Fix: {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple:
        """Pickle with both arguments, so that an error of a worker process keeps its class."""
        return _rebuild, (type(self), self.problem, self.fix)


def _rebuild(kind: type[KitError], problem: str, fix: str) -> KitError:
    return kind(problem, fix=fix)


class RecipeError(KitError, ValueError):
    """A field of the recipe has an invalid value."""


class DataError(KitError):
    """A folder, table, label or split that cannot be used for training."""


class ImageError(KitError):
    """A file that is not an image, is damaged, or is beyond the limits of size."""


class ArchitectureError(KitError):
    """A network that is unknown, or that kit cannot split into body and head."""


class WeightsError(KitError):
    """Pretrained weights that are missing, damaged, or made for another network."""


class FetchError(KitError):
    """A download that failed at every source, or whose checksum is wrong."""


class TrainingError(KitError):
    """Training that cannot continue, for example because the loss is not finite."""


class BundleError(KitError):
    """A bundle that is incomplete, modified, or of an unsupported version."""


class OutputError(KitError):
    """A folder or file that cannot be written."""


class Terminated(SystemExit):
    """SIGTERM: as Ctrl-C, it ends a run in order; then the process exits with the usual code of SIGTERM."""

    def __init__(self):
        super().__init__(143)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion like ' Did you mean "resnet18"?' where a known name is similar to `name`, else an empty string."""
    close = get_close_matches(name, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names, and '...' where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def first_line(error: Exception) -> str:
    """The first line of an error's message without terminal colours, or its class name where the message is empty."""
    return next(iter(COLOURS.sub("", str(error)).strip().splitlines()), type(error).__name__)
