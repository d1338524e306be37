"""What is known of a model, as HTML: the model card made readable, with the matrix and photos of its mistakes.

html = card(predictor.config, predictor.folder)

All of it comes from the bundle, which may come from a stranger: texts and numbers alike are escaped here, and only
photos whose hash was checked are opened.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from kit.data.images import open_image, square
from kit.errors import ImageError, some_of
from kit.evaluate.confusion import confused_most
from kit.manifest import CONVERTED, MISTAKES, photos
from kit.serve.render import data_url, measured_on, percent, sortable

# A matrix of more columns takes the whole width, or writes its headings upwards where they are long.
MOST_BESIDE, MOST_LEVEL, SHORT = 6, 4, 3
MOST_NAMED = 12
PHOTO = 320
CUT = {"crop": "the middle square", "pad": "all of it, with borders", "squish": "all of it, bent to a square"}
LIMITS = (
    "It knows only the classes named here, and names one of them for any image whatsoever.",
    "The error rate holds for images like the ones it was measured on. For another camera, place or season, measure "
    "anew: <code>kit evaluate BUNDLE FOLDER</code>.",
    "A probability is what the model expects, not a promise.",
)


def card(config: Mapping[str, Any], folder: Path) -> str:
    """The About tab: how often the model is wrong, and where; what it was trained on; what it cannot do.

    folder: the bundle's, for the photos of its mistakes. What an older bundle does not hold is left out.
    """
    figures = config["metrics"]
    whole, classes = matrix(figures, config["vocab"]), _per_class(figures.get("per_class", {}))
    pairs = _confused(figures.get("most_confused", []))
    limits = f"<section><h2>Limits</h2><ul>{''.join(f'<li>{limit}</li>' for limit in LIMITS)}</ul></section>"
    if 'class="wide"' in whole:
        rest = f"{whole}{_stack(classes)}{_stack(pairs, limits)}"
    else:
        rest = f"{_stack(whole, pairs)}{_stack(classes, limits)}"
    return f'<article class="about">{_rate(config)}{_facts(config)}{_mistakes(config, folder)}{rest}</article>'


def _stack(*sections: str) -> str:
    return f'<div class="stack">{"".join(sections)}</div>'


def _rate(config: Mapping[str, Any]) -> str:
    figures = config["metrics"]
    low, high, rate = figures["low"], figures["high"], figures["error_rate"]
    scale = min(1.0, max(0.05, 1.25 * high))
    places = f"--low:{low / scale:.4f};--high:{high / scale:.4f};--at:{rate / scale:.4f}"
    return (
        f'<section class="rate"><h2>How often it is wrong</h2><p class="figure">{percent(rate)}</p>'
        f'<div class="interval" style="{places}" aria-hidden="true"><i></i><b></b><span>0</span>'
        f"<span>{percent(scale, 0)}</span></div>"
        f"<p>Measured on {measured_on(config)}. The true rate lies between "
        f"<strong>{percent(low)}</strong> and <strong>{percent(high)}</strong> (95 % interval).</p></section>"
    )


def _facts(config: Mapping[str, Any]) -> str:
    data, image, vocab, versions = config["data"], config["image"], config["vocab"], config["versions"]
    trained = f"{data.get('train', '?')} images; {data.get('valid', '?')} others validated it"
    facts = {
        "tells apart": some_of(vocab, MOST_NAMED) + (f" ({len(vocab)} in all)" if len(vocab) > MOST_NAMED else ""),
        "network": f"{config['architecture']['name']} ({config['architecture'].get('library', '')})",
        "started from": Path(str(config["start"].get("origin", "nothing"))).name,
        "trained on": "not known" if config["start"].get("kind") == CONVERTED else trained,
        "sees": f"{image['size']} × {image['size']} pixels of {CUT.get(image['resize'], image['resize'])}",
        "made with": ", ".join(f"{name} {versions[name]}" for name in ("fastai", "torch") if name in versions),
    }
    rows = (f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    return f"<section><h2>What it is</h2><dl>{''.join(rows)}</dl></section>"


def _mistakes(config: Mapping[str, Any], folder: Path) -> str:
    checked = photos(config, MISTAKES)
    shown = [
        _mistake(one, folder, config["image"]["resize"]) for one in config.get("mistakes", []) if one["file"] in checked
    ]
    if not any(shown):
        return ""
    return (
        '<section class="wide"><h2>What it got wrong</h2><p class="note">A few of the images it was measured on, cut '
        "as it saw them; in brackets, how sure it was. Whoever gets the model gets these photos.</p>"
        f'<ul class="mistakes">{"".join(shown)}</ul></section>'
    )


def _mistake(one: Mapping[str, Any], folder: Path, resize: str) -> str:
    """A photo with what it is and what it was taken for; nothing where the file is no image."""
    try:
        image = square(open_image(folder / one["file"], at_least=PHOTO), PHOTO, resize)
    except ImageError:
        return ""
    label, said = escape(one["label"]), escape(one["prediction"])
    return (
        f'<li><img alt="{label}" src="{data_url(image, "JPEG")}"><span>is <b>{label}</b>, was taken for '
        f"<b>{said}</b> <em>({percent(one['probability'], 0)})</em></span></li>"
    )


def matrix(figures: Mapping[str, Any], vocab: Sequence[str]) -> str:
    """The confusion matrix as a table. Of more than 25 classes it shows those that are confused most."""
    cells = {(true, said): times for true, said, times in figures.get("confusion", [])}
    shown = confused_most(cells, len(vocab))
    if not shown:
        return ""
    names, others = [vocab[place] for place in shown], len(shown) < len(vocab)
    rows = []
    for true, name in zip(shown, names, strict=True):
        times, total = [cells.get((true, said), 0) for said in shown], int(figures["per_class"][name]["n"])
        times += [max(0, total - sum(times))] * others
        rows.append(f"<tr>{_heading(name, 'row')}{_counts(times, shown.index(true), total)}</tr>")
    which = f" Shown are the {len(shown)} of {len(vocab)} classes that are confused most." if others else ""
    return _matrix_section(names + ["others"] * others, "".join(rows), which)


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


def _per_class(classes: Mapping[str, Mapping[str, float | None]]) -> str:
    if not classes:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td data-value="{row["n"]}">{row["n"]:.0f}</td>'
        + "".join(_share(row[key]) for key in ("precision", "recall", "f1"))
        + "</tr>"
        for name, row in classes.items()
    )
    heads = sortable("class", "images", "precision", "recall", "F1")
    return (
        '<section><h2>Class by class</h2><p class="note">Precision: how often it is right when it says so. Recall: how '
        "many of this class it finds.</p>"
        '<div class="rows" tabindex="0" role="region" aria-label="Class by class"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _share(value: float | None) -> str:
    if value is None:
        return '<td data-value="-1">–</td>'
    return f'<td data-value="{value}"><span class="share" style="--share:{value:.4f}">{value:.3f}</span></td>'


def _confused(pairs: Sequence[Sequence[Any]]) -> str:
    if not pairs:
        return ""
    rows = ""
    for true, said, times in pairs[:8]:
        which = f"<b>{escape(str(true))}</b> taken for <b>{escape(str(said))}</b>"
        rows += f"<li><span>{which}</span><em>{escape(str(times))} ×</em></li>"
    return f'<section><h2>What it confuses</h2><ol class="confused">{rows}</ol></section>'
