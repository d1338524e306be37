"""Results as HTML: what a model says of one image and of many.

html = verdict(prediction, maps, picture, seconds)

Every text that comes from elsewhere (names of files and classes, reasons) is escaped here and nowhere else.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from kit.bundle.predictor import Prediction
from kit.manifest import CONVERTED

TOP = 5
PICTURE, HEAT = 480, 120
# Inferno's colours; where a map is low the image is dimmed, where it is high it glows.
RAMP = np.array([(0, 0, 4), (60, 15, 110), (150, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], float)
DIM, GLOW = 0.45, 0.8
UNLIKE = "This does not look like the training images"


def percent(value: float, digits: int = 1) -> str:
    """0.0278 as "2.8 %"; what is not quite all or nothing is never shown as that."""
    least = 10**-digits
    text = f"{100 * value:.{digits}f}"
    if value < 1 and float(text) == 100:
        return f"over {100 - least:.{digits}f} %"
    return f"under {least:.{digits}f} %" if value > 0 and float(text) == 0 else f"{text} %"


def measured_on(config: Mapping[str, Any]) -> str:
    """The images that the error rate was measured on, in words: what is not known of a converted export is not said."""
    images = f"{config['metrics']['n']:,} images"
    if config["start"].get("kind") == CONVERTED:
        return f"{images}, which it may have been trained on"
    return f"{images} that it was not trained on"


def title_of(vocab: Sequence[str]) -> str:
    """What the model tells apart, as a heading."""
    return " or ".join(vocab) if len(vocab) <= 3 else f"{len(vocab)} classes"


def data_url(image: Image.Image, kind: str) -> str:
    """An image inside the page: nothing of it stays on the server."""
    stream = io.BytesIO()
    image.save(stream, kind, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def heat_picture(values: np.ndarray) -> Image.Image | None:
    """A class's map (h, w) as a picture to lay over the image, or None where nothing spoke for the class.

    The brightest place is the one that spoke most for this class; two classes' brightness cannot be compared.
    """
    top = float(values.max())
    if not np.isfinite(top) or top <= 0:
        return None
    small = Image.fromarray((np.clip(values, 0, None) / top).astype(np.float32))
    level = np.clip(np.asarray(small.resize((HEAT, HEAT), Image.Resampling.BICUBIC)), 0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    colours = [np.interp(level, stops, RAMP[:, channel]) for channel in range(3)]
    alpha = 255 * (DIM + (GLOW - DIM) * level)
    return Image.fromarray(np.stack([*colours, alpha], 2).astype(np.uint8))


def verdict(
    one: Prediction, maps: np.ndarray | None, vocab: Sequence[str], picture: Image.Image, seconds: float
) -> str:
    """One prediction: its class, the picture with the heat map of a chosen class, the likeliest classes, the time."""
    best, probability = one.top(1)[0]
    pictures = (
        [(label, heat_picture(maps[vocab.index(label)])) for label, _ in one.top(TOP)] if maps is not None else []
    )
    warning = f'<p class="unlike"><strong>{UNLIKE}.</strong> Do not rely on what follows.</p>' if one.unlike else ""
    head = f"<h2><b>{escape(best)}</b> <span>{percent(probability)}</span></h2>"
    slider = (
        '<label class="strength"><span>Heat map</span>'
        '<input type="range" min="0" max="100" value="70" aria-label="Strength of the heat map"></label>'
    )
    took = f"{1000 * seconds:.0f}&nbsp;ms" if seconds < 1 else f"{seconds:.1f}&nbsp;s"
    how = "Choose a class to see what speaks for it: bright is much, dark is nothing." if pictures else ""
    return (
        f'<div class="result{" doubt" if one.unlike else ""}"><div role="status">{warning}{head}</div>'
        f'<div class="two"><div>{_seen(picture, pictures)}{slider if pictures else ""}</div>'
        f"<div>{_classes(one, bool(pictures))}"
        f'<p class="note">{how} The square is what the model saw. It took {took}.</p></div></div></div>'
    )


def _seen(picture: Image.Image, maps: Sequence[tuple[str, Image.Image | None]]) -> str:
    seen = f'<img alt="The part of the image that the model saw" src="{data_url(picture, "JPEG")}">'
    for place, (_, heat) in enumerate(maps):
        if heat is not None:
            hidden = " hidden" if place else ""
            seen += f'<img class="heat" data-place="{place}" alt="" src="{data_url(heat, "WEBP")}"{hidden}>'
    return f'<div class="seen">{seen}</div>'


def _classes(one: Prediction, choose: bool) -> str:
    rows = []
    for place, (label, value) in enumerate(one.top(TOP)):
        mark = f'<input type="radio" name="heat" value="{place}"{" checked" if place == 0 else ""}>' if choose else ""
        bar = f'<i style="--share:{value:.4f}"></i>'
        rows.append(f"<label>{mark}<span>{escape(label)}</span><em>{percent(value)}</em>{bar}</label>")
    return f'<fieldset class="classes"><legend>Likeliest classes</legend>{"".join(rows)}</fieldset>'


def trouble(text: str) -> str:
    """Why there is no result, as a sentence."""
    text = f"{text[:1].upper()}{text[1:].removesuffix('.')}."
    return f'<div class="trouble" role="alert"><strong>That did not work.</strong> {escape(text)}</div>'


def hint(text: str) -> str:
    """What to do where there is nothing to see yet."""
    return f'<div class="hint"><p>{escape(text)}</p></div>'


def table(rows: Sequence[Prediction], done: int, total: int, most: int | None = None) -> str:
    """Many predictions as a table that sorts by its headings, below how far it is."""
    failed = sum(one.error is not None for one in rows)
    unlike = sum(bool(one.unlike) for one in rows)
    remarks = [f"{done} of {total} done" if done < total else f"{len(rows) - failed} of {len(rows)} classified"]
    remarks += [f"{failed} could not be opened"] * (failed > 0) + [f"{unlike} unlike the training images"] * (
        unlike > 0
    )
    bar = f'<progress max="{total}" value="{done}" aria-label="Classified"></progress>' if done < total else ""
    body = "".join(map(_row, rows[:most]))
    heads = sortable("file", "prediction", "probability")
    return (
        f'<div class="many"><p role="status">{", ".join(remarks)}</p>{bar}'
        f'<div class="rows" tabindex="0" role="region" aria-label="Predictions"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def _row(one: Prediction) -> str:
    if one.error is not None:
        name = f"{escape(one.path)}<small>{escape(one.error)}</small>"
        return f'<tr class="bad"><th scope="row">{name}</th><td></td><td data-value="-1"></td></tr>'
    remark = f"<small>{UNLIKE[5].upper()}{UNLIKE[6:]}</small>" if one.unlike else ""
    return (
        f'<tr><th scope="row">{escape(one.path)}{remark}</th><td>{escape(one.label)}</td>'
        f'<td data-value="{one.probability:.6f}">{percent(one.probability)}</td></tr>'
    )


def sortable(*names: str) -> str:
    """Headings that sort the table below them."""
    return "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in names)
