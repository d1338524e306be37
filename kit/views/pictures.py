"""Photos and heat maps as data: URLs, so that a page needs no further files.

photos_of([{"path": "a.jpg", "label": "cat", "prediction": "dog", "probability": 0.9}], view, side=176)
"""

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kit.data.images import fit_image, open_image
from kit.errors import ImageError
from kit.tasks.base import is_number
from kit.tasks.text import percent
from kit.views.view import View

HEAT, QUALITY = 120, 80
MIDDLE = {"resize": "crop"}
# The colours of Matplotlib's inferno; opacity rises from low to high values.
RAMP = np.array([(0, 0, 4), (60, 15, 110), (150, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], float)
LEAST_OPACITY, MOST_OPACITY = 0.45, 0.8


class Photo(NamedTuple):
    """An image as a data: URL, its true label, its prediction and the probability of that, and the name of its file."""

    source: str
    label: str
    prediction: str
    sure: str
    name: str


def photos_of(
    rows: Iterable[Mapping[str, Any]], view: View, side: int, rules: Mapping[str, Any] = MIDDLE
) -> list[Photo]:
    """Squares of `side` pixels of the images of `rows` (path, label, prediction, and of one class, probability), cut by
    `rules` (`image` of a bundle's config).

    A file that is gone or no image is left out.
    """
    photos = []
    for row in rows:
        try:
            image = fit_image(open_image(row["path"], at_least=side), side, rules)
        except ImageError:
            continue
        label, prediction = (view.task.label(row[key], view.vocab) for key in ("label", "prediction"))
        sure = percent(row["probability"], 0) if is_number(row.get("probability")) else ""
        photos.append(Photo(data_url(image), label, prediction, sure, Path(row["path"]).name))
    return photos


def data_url(image: Image.Image, kind: str = "JPEG") -> str:
    """An image as a data: URL; nothing of it stays on the server."""
    stream = io.BytesIO()
    image.save(stream, kind, quality=QUALITY)
    return as_url(stream.getvalue(), kind)


def as_url(data: bytes, kind: str) -> str:
    """The bytes of an image file as a data: URL."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def heat_picture(values: np.ndarray) -> Image.Image | None:
    """A class's map (h, w) as a picture to lay over the image, or None where no part contributes to the class.

    Each map is scaled to its own maximum: the brightness of two maps cannot be compared.
    """
    top = float(values.max())
    if not np.isfinite(top) or top <= 0:
        return None
    small = Image.fromarray((np.clip(values, 0, None) / top).astype(np.float32))
    level = np.clip(np.asarray(small.resize((HEAT, HEAT), Image.Resampling.BICUBIC)), 0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    colours = [np.interp(level, stops, RAMP[:, channel]) for channel in range(3)]
    alpha = 255 * (LEAST_OPACITY + (MOST_OPACITY - LEAST_OPACITY) * level)
    return Image.fromarray(np.stack([*colours, alpha], 2).astype(np.uint8))
