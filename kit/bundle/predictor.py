"""Predict with a bundle; an image that cannot be opened gives a prediction with an error.

predictor = kit.bundle.load("runs/pets"); predictor.predict(["cat.jpg"]).table()

Imports only numpy and Pillow: the engine that computes the network is an argument, and only `table()` needs pandas.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kit.bundle.engines import Answers, Engine
from kit.data.images import Source, prepare_image, source_name, without_warnings
from kit.data.remote import is_url, open_url
from kit.errors import ImageError
from kit.evaluate.calibration import calibrated
from kit.evaluate.ood import OODDetector
from kit.tasks import Prediction, of

THREADS = 4
BATCHES_AHEAD = 1


class Predictions(list[Prediction]):
    """A list of `Prediction`, in the order of the images; `vocab` and `task` are the bundle's."""

    def __init__(self, rows: Iterable[Prediction], vocab: Sequence[str], task: str):
        super().__init__(rows)
        self.vocab, self.task = list(vocab), task

    def table(self) -> Any:
        """A pandas DataFrame with the columns of the task."""
        import pandas as pd

        task = of(self.task)
        rows = [task.row(one, self.vocab) for one in self]
        with pd.option_context("mode.string_storage", "python"):  # pyarrow holds no file name that is not UTF-8
            return pd.DataFrame(rows, columns=task.columns(self.vocab))


class Predictor:
    """Turns image files into predictions by an engine and the `config` of its bundle."""

    def __init__(self, config: dict[str, Any], engine: Engine, folder: Path, unknown: OODDetector | None = None):
        self.config, self.engine, self.folder, self.unknown = config, engine, folder, unknown
        self.vocab: list[str] = list(config["vocab"])
        self.task: str = config["task"]

    def __repr__(self) -> str:
        return f"Predictor({self.config['architecture']['name']}, {len(self.vocab)} classes, from {self.folder})"

    def prepare(self, source: Source) -> np.ndarray:
        """One image as input of the engine: uint8 (size, size, 3). Raises `ImageError`."""
        return prepare_image(open_url(source) if is_url(source) else source, self.config["image"])

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Prepared images (n, size, size, 3) to the outputs of the network (n, classes): uncalibrated probabilities, or
        numbers."""
        return self.engine(images).outputs.astype(np.float64)

    def explain(self, source: Source) -> tuple[Prediction, np.ndarray | None]:
        """The prediction of one image, and a heat map of each class (classes, h, w) over its prepared square.

        A map is 0 where the image is no evidence for the class; None where the network has no feature maps. Raises
        `ImageError`.
        """
        answers = self.engine(self.prepare(source)[None])
        (prediction,) = self._predictions(answers, [_name(source)])
        return prediction, None if answers.maps is None else answers.maps[0]

    def predict(self, images: Source | Iterable[Source], batch: int = 32) -> Predictions:
        """Predict one image or several: paths, URLs, bytes, open files or Pillow images, `batch` at a time.

        An image that cannot be opened gives a `Prediction` with its error.
        """
        one = isinstance(images, str | PathLike | bytes | Image.Image) or hasattr(images, "read")
        several = [images] if one else images
        return Predictions(self.predict_each(several, batch), self.vocab, self.task)

    def predict_each(self, images: Iterable[Source], batch: int = 32) -> Iterator[Prediction]:
        """Predictions one by one, for more images than fit into memory."""
        with without_warnings(), ThreadPoolExecutor(THREADS) as pool:
            try:
                for sources, prepared in self._ahead(iter(images), batch, pool):
                    yield from self._predict_batch(sources, list(prepared))
            finally:
                pool.shutdown(cancel_futures=True)

    def _ahead(
        self, stream: Iterator[Source], batch: int, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[Source], Iterable[np.ndarray | str]]]:
        """Batches of sources and prepared images; the pool prepares the next batch while one is computed."""
        waiting: deque[tuple[list[Source], Iterable[np.ndarray | str]]] = deque()
        while sources := list(islice(stream, batch)):
            waiting.append((sources, pool.map(self._attempt, sources)))
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.popleft()
        yield from waiting

    def _attempt(self, source: Source) -> np.ndarray | str:
        try:
            return self.prepare(source)
        except ImageError as error:
            return error.problem

    def _predict_batch(self, sources: list[Source], prepared: list[np.ndarray | str]) -> Iterator[Prediction]:
        good = [(_name(source), image) for source, image in zip(sources, prepared, strict=True) if is_image(image)]
        answers = self.engine(np.stack([image for _, image in good])) if good else None
        ready = self._predictions(answers, [name for name, _ in good]) if good else iter(())
        for source, image in zip(sources, prepared, strict=True):
            if is_image(image):
                yield next(ready)
            else:
                yield Prediction(_name(source), error=image.removeprefix(f"{source_name(source)}: "))

    def _predictions(self, answers: Answers, names: list[str]) -> Iterator[Prediction]:
        plain, temperature = answers.outputs.astype(np.float64), self.config["temperature"]
        known = plain if temperature == 1 else calibrated(plain, temperature)
        unlike = self.unknown.flags(answers.features).tolist() if self.unknown else [None] * len(names)
        for name, row, own, other in zip(names, known, plain, unlike, strict=True):
            by_name, own = (dict(zip(self.vocab, values.tolist(), strict=True)) for values in (row, own))
            yield Prediction(name, plain=own, unlike=other, **of(self.task).answer(by_name, self.config))


def is_image(prepared: np.ndarray | str) -> bool:
    """Whether an image could be prepared; otherwise there is the reason."""
    return not isinstance(prepared, str)


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | PathLike) else ""
