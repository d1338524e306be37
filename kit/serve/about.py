"""What is known of a model, as HTML: the model card made readable, with its figures and photos of its mistakes.

html = card(predictor.config, predictor.folder)

All of it comes from the bundle, which may come from a stranger: texts and numbers alike are escaped here, and only
photos whose hash was checked are opened.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from kit.data.images import open_image, square
from kit.errors import ImageError, some_of
from kit.manifest import CONVERTED, MISTAKES, photos
from kit.serve import figures
from kit.serve.render import data_url
from kit.serve.words import is_figure, ranges
from kit.task import CLASSIFICATION, MULTILABEL, NONE, REGRESSION, classes_of, numbers_of, percent, shown

MOST_NAMED = 12
PHOTO = 320
CUT = {"crop": "the middle square", "pad": "all of it, with borders", "squish": "all of it, bent to a square"}
DOES = {CLASSIFICATION: "tells apart", MULTILABEL: "finds", REGRESSION: "measures"}
WRONG = {CLASSIFICATION: "What it got wrong", MULTILABEL: "What it got wrong", REGRESSION: "Where it was farthest off"}
FIRST_LIMIT = {
    CLASSIFICATION: "It knows only the classes named here, and names one of them for any image whatsoever.",
    MULTILABEL: "It knows only the classes named here, and may find them in any image whatsoever.",
    REGRESSION: "It answers with a number for any image whatsoever.",
}
FIGURE = {CLASSIFICATION: "The error rate holds", MULTILABEL: "The figures hold", REGRESSION: "The figures hold"}
ANEW = (
    "{} for images like the ones it was measured on. For another camera, place or season, measure anew: "
    "<code>kit evaluate BUNDLE FOLDER</code>."
)


def card(config: Mapping[str, Any], folder: Path) -> str:
    """The About tab: how good the model is, and where it fails; what it was trained on; what it cannot do.

    folder: the bundle's, for the photos of its mistakes. What an older bundle does not hold is left out.
    """
    whole, classes, pairs = figures.matrix(config), figures.table(config), figures.confused(config)
    limits = _limits(config)
    if config["task"] != CLASSIFICATION:
        rest = f"{classes}{limits}"
    elif 'class="wide"' in whole:
        rest = f"{whole}{_stack(classes)}{_stack(pairs, limits)}"
    else:
        rest = f"{_stack(whole, pairs)}{_stack(classes, limits)}"
    return f'<article class="about">{figures.rate(config)}{_facts(config)}{_mistakes(config, folder)}{rest}</article>'


def _stack(*sections: str) -> str:
    return f'<div class="stack">{"".join(sections)}</div>'


def _facts(config: Mapping[str, Any]) -> str:
    data, image, vocab, versions = config["data"], config["image"], config["vocab"], config["versions"]
    trained = f"{data.get('train', '?')} images; {data.get('valid', '?')} others validated it"
    facts = {
        DOES[config["task"]]: some_of(vocab, MOST_NAMED)
        + (f" ({len(vocab)} in all)" if len(vocab) > MOST_NAMED else ""),
        "network": f"{config['architecture']['name']} ({config['architecture'].get('library', '')})",
        "started from": Path(str(config["start"].get("origin", "nothing"))).name,
        "trained on": "not known" if config["start"].get("kind") == CONVERTED else trained,
        "sees": f"{image['size']} × {image['size']} pixels of {CUT.get(image['resize'], image['resize'])}",
        "made with": ", ".join(f"{name} {versions[name]}" for name in ("fastai", "torch") if name in versions),
    }
    rows = (f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    return f"<section><h2>What it is</h2><dl>{''.join(rows)}</dl></section>"


def _limits(config: Mapping[str, Any]) -> str:
    task = config["task"]
    limits = (FIRST_LIMIT[task], ANEW.format(FIGURE[task]), escape(_worth(config)))
    kind = "" if task == CLASSIFICATION else "wide"
    return f'<section class="{kind}"><h2>Limits</h2><ul>{"".join(f"<li>{one}</li>" for one in limits)}</ul></section>'


def _worth(config: Mapping[str, Any]) -> str:
    """What a probability, or a number, is worth."""
    if config["task"] == CLASSIFICATION:
        return "A probability is what the model expects, not a promise."
    if config["task"] == MULTILABEL:
        marks = set(config["thresholds"])
        if len(marks) == 1:
            return f"A class is said from a probability of {shown(*marks)} on; that is not a promise."
        return "Each class is said from a probability of its own on, fitted on the images it was measured on."
    if not config["range"]["bounded"]:
        return "A number comes without a bound: beyond those of training it is a guess."
    ends = [f"{name} {shown(low)} to {shown(high)}" for name, (low, high) in ranges(config).items()]
    return f"It never answers beyond {some_of(ends, MOST_NAMED)}."


def _mistakes(config: Mapping[str, Any], folder: Path) -> str:
    checked, found = photos(config, MISTAKES), config.get("mistakes", [])
    parts = [_mistake(one, folder, config) for one in found if one["file"] in checked]
    if not any(parts):
        return ""
    sure = "; in brackets, how sure it was" if any(one.get("probability") is not None for one in found) else ""
    return (
        f'<section class="wide"><h2>{WRONG[config["task"]]}</h2><p class="note">A few of the images it was measured '
        f"on, cut as it saw them{sure}. Whoever gets the model gets these photos.</p>"
        f'<ul class="mistakes">{"".join(parts)}</ul></section>'
    )


def _mistake(one: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> str:
    """A photo with what it is and what was said of it; nothing where the file is no image."""
    try:
        image = square(open_image(folder / one["file"], at_least=PHOTO), PHOTO, config["image"]["resize"])
    except ImageError:
        return ""
    label, said = (_label(one[key], config) for key in ("label", "prediction"))
    sure = one.get("probability")
    words = {
        CLASSIFICATION: f"is <b>{label}</b>, was taken for <b>{said}</b>",
        MULTILABEL: f"has <b>{label}</b>; it said <b>{said}</b>",
        REGRESSION: f"is <b>{label}</b>; it said <b>{said}</b>",
    }[config["task"]]
    words += f" <em>({percent(sure, 0)})</em>" if is_figure(sure) else ""
    return f'<li><img alt="{label}" src="{data_url(image, "JPEG")}"><span>{words}</span></li>'


def _label(text: str, config: Mapping[str, Any]) -> str:
    """A label of a table as people write it: "circle, cross", "53.8", "diameter 53.8, x 0.4"."""
    if config["task"] == MULTILABEL:
        return escape(", ".join(classes_of(text)) or NONE)
    if config["task"] == CLASSIFICATION:
        return escape(text)
    try:
        numbers = [shown(number) for number in numbers_of(text)]
    except ValueError:
        return escape(text)
    several = len(config["vocab"]) == len(numbers) > 1
    names = [f"{name} " for name in config["vocab"]] if several else [""] * len(numbers)
    return escape(", ".join(f"{name}{number}" for name, number in zip(names, numbers, strict=True)))
