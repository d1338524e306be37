"""Results as HTML: what a model says of one image.

html = verdict(prediction, maps, predictor.config, picture, seconds)

Every text that comes from elsewhere (names of files and classes, reasons) is escaped where it becomes HTML: here, in
answers.py, rows.py, about.py and figures.py.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from kit.bundle.prediction import Prediction
from kit.serve import answers
from kit.task import REGRESSION

PICTURE, HEAT = 480, 120
# Inferno's colours; where a map is low the image is dimmed, where it is high it glows.
RAMP = np.array([(0, 0, 4), (60, 15, 110), (150, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], float)
DIM, GLOW = 0.45, 0.8
UNLIKE = "This does not look like the training images"


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
    one: Prediction, maps: np.ndarray | None, config: Mapping[str, Any], picture: Image.Image, seconds: float
) -> str:
    """One prediction: its answer, the picture with a heat map to choose, what the answer rests on, and the time.

    maps: a heat map of each class or number (classes, h, w). config: of the bundle.
    """
    names, vocab = answers.in_sight(one), config["vocab"]
    pictures = [] if maps is None else [heat_picture(maps[vocab.index(name)]) for name in names]
    pictures = pictures if any(pictures) else []
    warning = f'<p class="unlike"><strong>{UNLIKE}.</strong> Do not rely on what follows.</p>' if one.unlike else ""
    slider = (
        '<label class="strength"><span>Heat map</span>'
        '<input type="range" min="0" max="100" value="70" aria-label="Strength of the heat map"></label>'
    )
    took = f"{1000 * seconds:.0f}&nbsp;ms" if seconds < 1 else f"{seconds:.1f}&nbsp;s"
    choose = bool(pictures) and (len(names) > 1 or config["task"] != REGRESSION)
    how = answers.how_to_read(config["task"], bool(pictures), choose)
    how = how if pictures or maps is None else f"No part of it speaks for the answer more than others. {how}".strip()
    return (
        f'<div class="result{" doubt" if one.unlike else ""}">'
        f'<div role="status">{warning}<h2>{answers.heading(one)}</h2></div>'
        f'<div class="two"><div>{_seen(picture, pictures)}{slider if pictures else ""}</div>'
        f"<div>{answers.reasons(one, config, choose)}"
        f'<p class="note">{how} The square is what the model saw. It took {took}.</p></div></div></div>'
    )


def _seen(picture: Image.Image, maps: Sequence[Image.Image | None]) -> str:
    seen = f'<img alt="The part of the image that the model saw" src="{data_url(picture, "JPEG")}">'
    for place, heat in enumerate(maps):
        if heat is not None:
            hidden = " hidden" if place else ""
            seen += f'<img class="heat" data-place="{place}" alt="" src="{data_url(heat, "WEBP")}"{hidden}>'
    return f'<div class="seen">{seen}</div>'


def trouble(text: str) -> str:
    """Why there is no result, as a sentence."""
    text = f"{text[:1].upper()}{text[1:].removesuffix('.')}."
    return f'<div class="trouble" role="alert"><strong>That did not work.</strong> {escape(text)}</div>'


def hint(text: str) -> str:
    """What to do where there is nothing to see yet."""
    return f'<div class="hint"><p>{escape(text)}</p></div>'
