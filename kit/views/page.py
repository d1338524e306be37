"""The parts of the page as HTML: the prediction for one image, a card of each of many, and the model card.

prediction_html(prediction, maps, predictor.config, picture, seconds)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kit.manifest import MISTAKES, photos
from kit.tasks import Prediction, of
from kit.views.pictures import data_url, heat_picture, photos_of
from kit.views.render import render_template
from kit.views.view import view_of

PHOTO = 320
UNLIKE = 1000.0  # more than any doubt


def prediction_html(
    one: Prediction, maps: np.ndarray | None, config: Mapping[str, Any], picture: Image.Image, seconds: float
) -> str:
    """One prediction: the answer, the picture with heat maps, and the classes or numbers.

    maps: a heat map of each class or number (classes, h, w). config: of the bundle.
    """
    task = of(config["task"])
    groups = task.groups(one, config)
    names = [name for group in groups.values() for name in group]
    found = [] if maps is None else [heat_picture(maps[config["vocab"].index(name)]) for name in names]
    heats = [heat and data_url(heat, "WEBP") for heat in found] if any(found) else []
    return render_template(
        "prediction.html",
        task=task,
        one=one,
        answer=task.parts(one),
        groups=groups,
        names=names,
        outputs=getattr(one, task.outputs),
        thresholds=task.thresholds(config),
        ranges=task.ranges(config),
        breakdown=task.breakdown(config),
        picture=data_url(picture),
        heats=heats,
        choose=bool(heats) and len(names) > 1,
        flat=maps is not None and not heats,
        took=f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s",
    )


def card_html(one: Prediction, config: Mapping[str, Any], thumbnail: Image.Image | None) -> str:
    """One of many predictions: a thumbnail with the answer, or why there is none."""
    answer = [] if one.error else of(config["task"]).parts(one)
    return render_template("card.html", one=one, answer=answer, thumbnail=thumbnail and data_url(thumbnail))


def doubt_of(one: Prediction, config: Mapping[str, Any]) -> float:
    """By what many predictions are ordered: unlike the training images first, then the least sure, errors last."""
    if one.error:
        return -UNLIKE
    return of(config["task"]).doubt(one, config) + (UNLIKE if one.unlike else 0)


def about_html(config: Mapping[str, Any], folder: Path) -> str:
    """The model card, with photos of mistakes from the bundle's `folder`.

    Only photos whose hash was checked are opened. What an older bundle does not hold is left out.
    """
    view, checked = view_of(config), photos(config, MISTAKES)
    rows = [one | {"path": folder / one["file"]} for one in config.get("mistakes", []) if one["file"] in checked]
    return render_template("about.html", view=view, mistakes=photos_of(rows, view, PHOTO, config["image"]))
