"""Labels and numbers as text. In a table the label of an image is one text: "cat"; of several classes "cat;dog", in
alphabetical order, and "" for none of them; of numbers "41.5;0.2".

classes_of("cat;dog"), percent(0.0278)            # (["cat", "dog"], "2.8 %")
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

CLASSIFICATION, MULTILABEL, REGRESSION = TASKS = ("classification", "multilabel", "regression")
SEPARATOR = ";"
NONE = "none of the classes"
HALF = 0.5
MOST_IN_TITLE = 3
MOST_LISTED, LONGEST = 4, 30
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def readable(text: str) -> str:
    """`text` in Unicode's composed form (NFC), in which names are compared; macOS writes file names decomposed (NFD).

    Bytes of a file name that are not UTF-8, and control characters, are escaped with a backslash, so that the result
    can be printed and written.
    """
    text = unicodedata.normalize("NFC", text.encode("utf-8", "backslashreplace").decode())
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def join_classes(names: Iterable[str]) -> str:
    """The label text of several classes: each once, in alphabetical order."""
    return SEPARATOR.join(sorted(set(names)))


def classes_of(label: str) -> list[str]:
    """The classes of a label text."""
    return label.split(SEPARATOR) if label else []


def join_numbers(numbers: Iterable[float]) -> str:
    """The label text of one or several numbers, exact."""
    return SEPARATOR.join(repr(float(number)).removesuffix(".0") for number in numbers)


def numbers_of(label: str) -> list[float]:
    """The numbers of a label text."""
    return [float(number) for number in label.split(SEPARATOR)]


def shown(number: float) -> str:
    """A number for people: four digits."""
    return f"{number:.4g}" if abs(number) < 10_000 else f"{number:,.0f}"


def percent(value: float, digits: int = 1) -> str:
    """0.0278 as "2.8 %"; what is not quite all or nothing is never shown as that."""
    least = 10**-digits
    text = f"{100 * value:.{digits}f}"
    if value < 1 and float(text) == 100:
        return f"over {100 - least:.{digits}f} %"
    return f"under {least:.{digits}f} %" if value > 0 and float(text) == 0 else f"{text} %"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, long ones shortened: "cat, dog and fox"; of many the first: "cat, dog, fox and 34 more"."""
    short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    rest = len(short) - MOST_LISTED + 1
    if rest > 1:
        short = [*short[: MOST_LISTED - 1], f"{rest:,} more"]
    return " and ".join(filter(None, [", ".join(short[:-1]), short[-1]]))


def one_in(rate: float, at_most: bool = False) -> str:
    """A rate above 0 in words: "about 1 in 14", or above 0.3 "about 4 in 10"; at_most: never less than the rate."""
    if rate > 0.3:
        return f"about {math.ceil(10 * rate) if at_most else min(round(10 * rate), 9)} in 10"
    times = 1 / rate
    step = 10 ** max(0, math.floor(math.log10(times)) - 1)
    return f"about 1 in {(math.floor if at_most else round)(times / step) * step:,}"
