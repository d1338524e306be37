"""The figures of a model as HTML, by task: the headline with its interval, the confusion matrix, and class by class.

rate(config), matrix(config), table(config)
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kit.evaluate.confusion import confused_most
from kit.serve.rows import sortable
from kit.serve.words import breakdown, is_figure, measured_on, share
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION, percent, shown

# A matrix of more columns takes the whole width, or writes its headings upwards where they are long.
MOST_BESIDE, MOST_LEVEL, SHORT = 6, 4, 3
MOST_BARS, MOST_PAIRS = 6, 8
ROOM = 1.25
MEANING = "Precision: how often it is right when it says so. Recall: how many of this class it finds."
TITLES = {
    CLASSIFICATION: ("Class by class", MEANING, ""),
    MULTILABEL: (
        "Class by class",
        f"Seen from: the probability from which on it says so. {MEANING} Average precision: both at once, for every "
        "such threshold.",
        "wide",
    ),
    REGRESSION: (
        "Number by number",
        "Off by: on average; from, to: its 95 % interval. RMSE: the same where large mistakes weigh more. R2: the "
        "share of what varies that it explains.",
        "wide",
    ),
}
SHARES = ("precision", "recall", "f1", "average_precision")
COLUMNS = {
    CLASSIFICATION: (("images", "n"), ("precision", "precision"), ("recall", "recall"), ("F1", "f1")),
    MULTILABEL: (
        ("images", "n"),
        ("F1", "f1"),
        ("average precision", "average_precision"),
        ("seen from", "threshold"),
        ("precision", "precision"),
        ("recall", "recall"),
    ),
    REGRESSION: (("off by", "mae"), ("from", "low"), ("to", "high"), ("RMSE", "rmse"), ("R2", "r2")),
}


def rate(config: Mapping[str, Any]) -> str:
    """The headline of the task with a bar of its 95 % interval, and what it means."""
    return {CLASSIFICATION: _error_rate, MULTILABEL: _f1, REGRESSION: _off_by}[config["task"]](config)


def _error_rate(config: Mapping[str, Any]) -> str:
    figures = config["metrics"]
    low, high, value = figures["low"], figures["high"], figures["error_rate"]
    scale = min(1.0, max(0.05, ROOM * high))
    return (
        f'<section class="rate"><h2>How often it is wrong</h2><p class="figure">{percent(value)}</p>'
        f"{_bar(low, value, high, scale, percent(scale, 0))}"
        f"<p>Measured on {measured_on(config)}. The true rate lies between "
        f"<strong>{percent(low)}</strong> and <strong>{percent(high)}</strong> (95 % interval).</p></section>"
    )


def _f1(config: Mapping[str, Any]) -> str:
    figures = config["metrics"]
    low, high, value = figures["low"], figures["high"], figures["f1"]
    more = []
    if is_figure(figures.get("exact")):
        more.append(f"Every class is right on <strong>{percent(figures['exact'])}</strong> of the images")
    if is_figure(figures.get("mean_average_precision")):
        more.append(f"mean average precision {share(figures['mean_average_precision'])}")
    also = f"<p>{'; '.join(more)}.</p>" if more else ""
    return (
        f'<section class="rate"><h2>How well it finds the classes</h2><p class="figure">{share(value)}</p>'
        f"{_bar(low, value, high, 1.0, '1')}"
        f"<p>F1, the mean of the classes: 1 where nothing is missed and nothing made up. Measured on "
        f"{measured_on(config)}. The true figure lies between <strong>{share(low)}</strong> and "
        f"<strong>{share(high)}</strong> (95 % interval).</p>{also}</section>"
    )


def _off_by(config: Mapping[str, Any]) -> str:
    rows, alone = breakdown(config), len(config["vocab"]) == 1
    bars = ""
    for name, row in list(rows.items())[:MOST_BARS]:
        top = ROOM * row["high"] or 1.0
        bars += (
            f'<p class="figure">{shown(row["mae"])}{"" if alone else f" <small>{escape(name)}</small>"}</p>'
            f"{_bar(row['low'], row['mae'], row['high'], top, shown(top))}"
            f'<p class="note">95 % interval: {shown(row["low"])} to {shown(row["high"])}</p>'
        )
    rest = len(rows) - MOST_BARS
    more = f" The other {rest} are in the table below." if rest > 0 else ""
    return (
        f'<section class="rate{"" if alone else " many-figures"}"><h2>How far off it is</h2>{bars}'
        f"<p>On average, in the unit of the labels. Measured on {measured_on(config)}.{more}</p>"
        f"<p>{_explained(config['metrics'])}</p></section>"
    )


def _explained(figures: Mapping[str, Any]) -> str:
    """R2 in words."""
    value, low, high = (figures.get(name) for name in ("r2", "low", "high"))
    if not is_figure(value):
        return "R2 cannot be told: the numbers of these images do not vary."
    ends = f" (95 % interval: {low:.2f} to {high:.2f})" if is_figure(low) and is_figure(high) else ""
    if value <= 0:
        return f"R2 {value:.2f}{ends}: it does no better than always answering the mean."
    return f"It explains <strong>{percent(value, 0)}</strong> of what varies: R2 {value:.2f}{ends}."


def _bar(low: float, value: float, high: float, scale: float, end: str) -> str:
    """An interval on a scale from 0."""
    places = f"--low:{max(low, 0) / scale:.4f};--high:{high / scale:.4f};--at:{value / scale:.4f}"
    return (
        f'<div class="interval" style="{places}" aria-hidden="true"><i></i><b></b><span>0</span>'
        f"<span>{end}</span></div>"
    )


def matrix(config: Mapping[str, Any]) -> str:
    """The confusion matrix as a table. Of more than 25 classes it shows those that are confused most."""
    vocab = config["vocab"]
    cells = {(true, said): times for true, said, times in config["metrics"].get("confusion", [])}
    places = confused_most(cells, len(vocab)) if config["task"] == CLASSIFICATION else []
    if not places:
        return ""
    names, others = [vocab[place] for place in places], len(places) < len(vocab)
    counted, rows = breakdown(config), []
    for true, name in zip(places, names, strict=True):
        times = [cells.get((true, said), 0) for said in places]
        total = _total(counted.get(name), true, cells)
        times += [max(0, total - sum(times))] * others
        rows.append(f"<tr>{_heading(name, 'row')}{_counts(times, places.index(true), total)}</tr>")
    which = f" Shown are the {len(places)} of {len(vocab)} classes that are confused most." if others else ""
    return _matrix_section(names + ["others"] * others, "".join(rows), which)


def _total(row: Mapping[str, Any] | None, place: int, cells: Mapping[tuple[int, int], int]) -> int:
    """How many images are of a class. Of very many classes the cells are not all written down."""
    return int(row["n"]) if row else sum(times for (true, _), times in cells.items() if true == place)


def _matrix_section(names: Sequence[str], rows: str, which: str) -> str:
    wide = "wide" if len(names) > MOST_BESIDE else ""
    tall = " tall" if len(names) > MOST_LEVEL and max(map(len, names)) > SHORT else ""
    heads = "".join(_heading(name, "col") for name in names)
    return (
        f'<section class="{wide}"><h2>Confusion matrix</h2>'
        f'<p class="note">A row is what the images are, a column what they were taken for.{which}</p>'
        f'<div class="rows matrix{tall}" tabindex="0" role="region" aria-label="Confusion matrix"><table>'
        "<caption>Numbers of images: rows are true classes, columns predictions</caption>"
        f'<thead><tr><td aria-hidden="true">is ↓ said →</td>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _heading(name: str, side: str) -> str:
    return f'<th scope="{side}" title="{escape(name)}"><span>{escape(name)}</span></th>'


def _counts(times: Sequence[int], right: int, total: int) -> str:
    """The cells of a row of `total` images; the one at `right` counts those that were predicted rightly."""
    cells = []
    for place, count in enumerate(times):
        kind, share = "right" if place == right else "wrong", count / max(total, count, 1)
        filled = f'<td class="{kind}" style="--share:{share:.3f}" title="{count} of {total}">{count}</td>'
        cells.append(filled if count else '<td class="none">0</td>')
    return "".join(cells)


def table(config: Mapping[str, Any]) -> str:
    """Class by class, or number by number: a row each, that sort by every figure."""
    rows, task = breakdown(config), config["task"]
    if not rows:
        return ""
    title, note, kind = TITLES[task]
    heads = sortable(title.split()[0].lower(), *(heading for heading, _ in COLUMNS[task]))
    body = ""
    for name, row in rows.items():
        cells = "".join(_figure(key, row.get(key)) for _, key in COLUMNS[task])
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    return (
        f'<section class="{kind}"><h2>{title}</h2><p class="note">{note}</p>'
        f'<div class="rows" tabindex="0" role="region" aria-label="{title}"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _figure(key: str, value: float | None) -> str:
    """A cell that sorts by its number; what is a share of the best is a bar too."""
    if value is None:
        return '<td data-value="-Infinity">–</td>'
    if key in SHARES:
        return f'<td data-value="{value}"><span class="share" style="--share:{value:.4f}">{value:.3f}</span></td>'
    text = f"{value:,.0f}" if key == "n" else f"{value:.2f}" if key == "r2" else shown(value)
    return f'<td data-value="{value}">{text}</td>'


def confused(config: Mapping[str, Any]) -> str:
    """The pairs of classes that are confused most."""
    pairs = config["metrics"].get("most_confused")
    pairs = [pair for pair in pairs if isinstance(pair, list) and len(pair) == 3] if isinstance(pairs, list) else []
    rows = ""
    for true, said, times in pairs[:MOST_PAIRS]:
        which = f"<b>{escape(str(true))}</b> taken for <b>{escape(str(said))}</b>"
        rows += f"<li><span>{which}</span><em>{escape(str(times))} ×</em></li>"
    return f'<section><h2>What it confuses</h2><ol class="confused">{rows}</ol></section>' if rows else ""
