"""Predict with a bundle: images in, predictions out, a bad image is an error in its own row.

predictor = kit.bundle.load("runs/pets"); predictor.predict(["cat.jpg"]).table()

Imports numpy and Pillow only; what computes the network is passed in, and pandas is imported by `table()` alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kit.bundle.engines import Engine
from kit.data.images import Source, open_image, square, without_warnings
from kit.errors import ImageError

THREADS = 4


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image: its best class and that class's probability, and those of all classes.

    Where the image cannot be opened, `error` says why, and the other fields are None and empty.
    """

    path: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    error: str | None = None

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The `count` likeliest classes with their probabilities, likeliest first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:count]


class Predictions(list):
    """A list of `Prediction`, in the order of the images."""

    def table(self) -> Any:
        """A pandas DataFrame: path, prediction, probability, p_CLASS for each class, error."""
        import pandas as pd

        rows = [
            {"path": one.path, "prediction": one.label, "probability": one.probability}
            | {f"p_{name}": value for name, value in one.probabilities.items()}
            | {"error": one.error}
            for one in self
        ]
        table = pd.DataFrame(rows)
        return table[[name for name in table if name != "error"] + ["error"]] if len(table) else table


def prepare_image(source: Source, rules: Mapping[str, Any]) -> np.ndarray:
    """An image as the rules of a bundle's config want it: uint8 (size, size, 3), RGB. Raises `ImageError`."""
    return np.array(square(open_image(source, rules["at_least"]), rules["size"], rules["resize"]), dtype=np.uint8)


class Predictor:
    """A network with all that it needs to turn files into predictions: `config` of its bundle, and an engine."""

    def __init__(self, config: dict[str, Any], engine: Engine, folder: Path):
        self.config, self.engine, self.folder = config, engine, folder
        self.vocab: list[str] = list(config["vocab"])

    def __repr__(self) -> str:
        return f"Predictor({self.config['architecture']['name']}, {len(self.vocab)} classes, from {self.folder})"

    def prepare(self, source: Source) -> np.ndarray:
        """One image as the network is given it: uint8 (size, size, 3). Raises `ImageError`."""
        return prepare_image(source, self.config["image"])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Prepared images (n, size, size, 3) to probabilities (n, classes)."""
        return self.engine(images).probabilities.astype(np.float64)

    def explain(self, source: Source) -> tuple[Prediction, np.ndarray | None]:
        """The prediction of one image, and a heat map of each class (classes, h, w), over the square it was cut to.

        A map is 0 where a place did not speak for the class; there are none where the network has no feature maps.
        Raises `ImageError`.
        """
        prepared = self.prepare(source)
        maps = self.engine(prepared[None]).maps
        return next(self._predict_batch([source], [prepared])), None if maps is None else maps[0]

    def predict(self, images: Source | Iterable[Source], batch: int = 32) -> Predictions:
        """Predict one image or several: paths, bytes, open files or Pillow images, `batch` at a time.

        A bad image gives a `Prediction` with its error; the others are not disturbed.
        """
        one = isinstance(images, str | PathLike | bytes | Image.Image) or hasattr(images, "read")
        several = [images] if one else images
        return Predictions(self.predict_each(several, batch))

    def predict_each(self, images: Iterable[Source], batch: int = 32) -> Iterator[Prediction]:
        """The same one by one, as they come: for folders that are larger than the memory."""
        stream = iter(images)
        with without_warnings(), ThreadPoolExecutor(THREADS) as pool:
            while sources := list(islice(stream, batch)):
                yield from self._predict_batch(sources, list(pool.map(self._attempt, sources)))

    def _attempt(self, source: Source) -> np.ndarray | str:
        try:
            return self.prepare(source)
        except ImageError as error:
            return error.problem

    def _predict_batch(self, sources: list[Source], prepared: list[np.ndarray | str]) -> Iterator[Prediction]:
        good = [image for image in prepared if not isinstance(image, str)]
        rows = iter(self.probabilities(np.stack(good)) if good else ())
        for source, image in zip(sources, prepared, strict=True):
            name = str(source) if isinstance(source, str | PathLike) else ""
            if isinstance(image, str):
                yield Prediction(name, None, None, {}, image.removeprefix(f"{name}: "))
                continue
            row = next(rows)
            best = int(row.argmax())
            probabilities = dict(zip(self.vocab, row.tolist(), strict=True))
            yield Prediction(name, self.vocab[best], float(row[best]), probabilities)
