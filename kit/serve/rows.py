"""Many predictions as HTML: a table that sorts by its headings, with the columns of the task.

html = table(predictions, predictor.config, done=3, total=5)
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kit.bundle.prediction import Prediction
from kit.serve.render import UNLIKE
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION, percent, shown

MOST_COLUMNS = 8
HEADS = {CLASSIFICATION: ("prediction", "probability"), MULTILABEL: ("prediction",), REGRESSION: ()}
DONE = {CLASSIFICATION: "classified", MULTILABEL: "classified", REGRESSION: "measured"}


def table(rows: Sequence[Prediction], config: Mapping[str, Any], done: int, total: int, most: int | None = None) -> str:
    """Many predictions as a table, below how far it is. most: how many rows are shown; all by default."""
    failed, verb = sum(one.error is not None for one in rows), DONE[config["task"]]
    unlike = sum(bool(one.unlike) for one in rows)
    remarks = [f"{done} of {total} done" if done < total else f"{len(rows) - failed} of {len(rows)} {verb}"]
    remarks += [f"{failed} could not be opened"] * (failed > 0)
    remarks += [f"{unlike} unlike the training images"] * (unlike > 0)
    bar = f'<progress max="{total}" value="{done}" aria-label="{verb.title()}"></progress>' if done < total else ""
    names = shown_names(config)
    heads = sortable("file", *HEADS[config["task"]], *names)
    body = "".join(_row(one, config["task"], names) for one in rows[:most])
    rest = len(config["vocab"]) - len(names)
    more = f'<p class="note">The CSV has {rest} more.</p>' if names and rest else ""
    return (
        f'<div class="many"><p role="status">{", ".join(remarks)}</p>{bar}'
        f'<div class="rows{" several" if len(names) > 1 else ""}" tabindex="0" role="region" aria-label="Predictions">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>{more}</div>"
    )


def shown_names(config: Mapping[str, Any]) -> list[str]:
    """The classes or numbers that have a column each."""
    if config["task"] == CLASSIFICATION or (config["task"] == MULTILABEL and len(config["vocab"]) > MOST_COLUMNS):
        return []
    return list(config["vocab"][:MOST_COLUMNS])


def _row(one: Prediction, task: str, names: Sequence[str]) -> str:
    if one.error is not None:
        cells = '<td data-value="-Infinity"></td>' * (len(names) + (task == CLASSIFICATION))
        name = f"{escape(one.path)}<small>{escape(one.error)}</small>"
        return f'<tr class="bad"><th scope="row">{name}</th>{"" if task == REGRESSION else "<td></td>"}{cells}</tr>'
    remark = f"<small>{UNLIKE[5].upper()}{UNLIKE[6:]}</small>" if one.unlike else ""
    return f'<tr><th scope="row">{escape(one.path)}{remark}</th>{_cells(one, task, names)}</tr>'


def _cells(one: Prediction, task: str, names: Sequence[str]) -> str:
    if task == REGRESSION:
        return "".join(_cell(one.numbers[name], shown(one.numbers[name])) for name in names)
    answer = f"<td>{escape(one.text)}</td>"
    if task == CLASSIFICATION:
        return answer + _cell(one.probability, percent(one.probability))
    shares = [(one.probabilities[name], name in one.labels) for name in names]
    return answer + "".join(_cell(value, percent(value), "said" if said else "") for value, said in shares)


def _cell(value: float, text: str, kind: str = "") -> str:
    """A cell that sorts by its number, exact to the last digit."""
    return (
        f'<td class="{kind}" data-value="{value!r}">{text}</td>' if kind else f'<td data-value="{value!r}">{text}</td>'
    )


def sortable(*names: str) -> str:
    """Headings that sort the table below them."""
    return "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in names)
