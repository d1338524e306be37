"""The answer to one image as HTML, by task: the heading, and beside the picture what the answer rests on.

heading(prediction), reasons(prediction, predictor.config, choose=True)
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kit.bundle.prediction import Prediction
from kit.errors import some_of
from kit.serve.words import breakdown, ranges
from kit.task import CLASSIFICATION, MULTILABEL, NONE, REGRESSION, percent, shown

TOP, LEAST_OTHERS, MOST_SAID = 5, 2, 20
MOST_IN_HEADING, MOST_NUMBERS = 12, 6


def in_sight(one: Prediction) -> list[str]:
    """The classes or numbers that have a row, in their order: the likeliest, or those said and then the likeliest."""
    if one.numbers:
        return list(one.numbers)
    likeliest = [name for name, _ in one.top(len(one.probabilities))]
    if one.labels is None:
        return likeliest[:TOP]
    said = list(one.labels[:MOST_SAID])
    others = [name for name in likeliest if name not in one.labels]
    return said + others[: max(TOP - len(said), LEAST_OTHERS)]


def heading(one: Prediction) -> str:
    """The answer itself: the best class and its probability, the classes said, or the numbers."""
    if one.numbers:
        if len(one.numbers) > MOST_NUMBERS:
            return f"<b>{len(one.numbers)} numbers</b>"
        return "".join(
            f'<i class="pair"><b>{escape(name)}</b> <span>{shown(number)}</span></i>'
            for name, number in one.numbers.items()
        )
    if one.labels is not None:
        return f"<b>{escape(some_of(one.labels, MOST_IN_HEADING)) or NONE}</b>"
    best, probability = one.top(1)[0]
    return f"<b>{escape(best)}</b> <span>{percent(probability)}</span>"


def how_to_read(task: str, maps: bool, choose: bool) -> str:
    """What the marks mean, and what the heat map shows."""
    marks = "The mark on a bar is where its class begins to be seen." if task == MULTILABEL else ""
    if not maps:
        return marks
    if task == REGRESSION:
        which = (
            "Choose a number to see what speaks for a higher one"
            if choose
            else "The picture shows what speaks for a higher number"
        )
        return f"{which}: bright is much, dark is nothing."
    return f"{marks} Choose a class to see what speaks for it: bright is much, dark is nothing.".strip()


def reasons(one: Prediction, config: Mapping[str, Any], choose: bool) -> str:
    """What stands beside the picture: each class with its probability, or where each number lies in its range.

    choose: whether each is a choice of its heat map.
    """
    if config["task"] == REGRESSION:
        return _numbers(one, config, choose)
    names = in_sight(one)
    if config["task"] == CLASSIFICATION:
        rows = "".join(_class(name, one, _choice(place) if choose else "") for place, name in enumerate(names))
        return _fieldset("Likeliest classes", rows)
    marks = dict(zip(config["vocab"], config["thresholds"], strict=True))
    rows = [_class(name, one, _choice(place) if choose else "", marks[name]) for place, name in enumerate(names)]
    count = sum(name in one.labels for name in names)
    return _fieldset("It sees", "".join(rows[:count])) + _fieldset("It does not see", "".join(rows[count:]), "others")


def _fieldset(legend: str, rows: str, kind: str = "") -> str:
    return f'<fieldset class="classes {kind}"><legend>{legend}</legend>{rows}</fieldset>' if rows else ""


def _choice(place: int) -> str:
    return f'<input type="radio" name="heat" value="{place}"{"" if place else " checked"}>'


def _class(name: str, one: Prediction, choice: str, mark: float | None = None) -> str:
    value = one.probabilities[name]
    marked = "" if mark is None else f'<u style="--mark:{min(max(mark, 0), 1):.4f}"></u>'
    bar = f'<i style="--share:{value:.4f}">{marked}</i>'
    return f"<label>{choice}<span>{escape(name)}</span><em>{percent(value)}</em>{bar}</label>"


def _numbers(one: Prediction, config: Mapping[str, Any], choose: bool) -> str:
    ends, figures = ranges(config), breakdown(config)
    rows = ""
    for place, (name, number) in enumerate(one.numbers.items()):
        off = figures[name]["mae"] if name in figures else None
        remark = "" if off is None else f"<small>off by {shown(off)} on average</small>"
        rows += (
            f"<label>{_choice(place) if choose else ''}<span>{escape(name)}</span><em>{shown(number)}</em>"
            f"{scale(number, ends[name], off or 0)}{remark}</label>"
        )
    what = "Where it lies between the lowest and the highest answer"
    return _fieldset(what if config["range"]["bounded"] else "Where it lies among the training images", rows, "numbers")


def scale(number: float, ends: Sequence[float], off: float) -> str:
    """A bar from the lowest to the highest answer, with a mark at a number and a band of `off` around it."""
    low, high = ends

    def place(value: float) -> float:
        return min(max((value - low) / (high - low), 0), 1)

    places = f"--low:{place(number - off):.4f};--high:{place(number + off):.4f};--at:{place(number):.4f}"
    return (
        f'<span class="interval" style="{places}" aria-hidden="true"><i></i><b></b>'
        f"<span>{shown(low)}</span><span>{shown(high)}</span></span>"
    )
