"""Predict with a bundle: images in, predictions out, a bad image is an error in its own row.

predictor = kit.bundle.load("runs/pets"); predictor.predict(["cat.jpg"]).table()

Imports numpy and Pillow only; what computes the network is passed in, and pandas is imported by `table()` alone.
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
from kit.errors import ImageError
from kit.evaluate.calibration import calibrated
from kit.evaluate.unknown import OODDetector
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
        return pd.DataFrame([task.row(one, self.vocab) for one in self], columns=task.columns(self.vocab))


class Predictor:
    """A network with all that it needs to turn files into predictions: `config` of its bundle, and an engine."""

    def __init__(self, config: dict[str, Any], engine: Engine, folder: Path, unknown: OODDetector | None = None):
        self.config, self.engine, self.folder, self.unknown = config, engine, folder, unknown
        self.vocab: list[str] = list(config["vocab"])
        self.task: str = config["task"]

    def __repr__(self) -> str:
        return f"Predictor({self.config['architecture']['name']}, {len(self.vocab)} classes, from {self.folder})"

    def prepare(self, source: Source) -> np.ndarray:
        """One image as the network is given it: uint8 (size, size, 3). Raises `ImageError`."""
        return prepare_image(source, self.config["image"])

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Prepared images (n, size, size, 3) to what the network itself says (n, classes): probabilities, not
        calibrated, or numbers."""
        return self.engine(images).outputs.astype(np.float64)

    def explain(self, source: Source) -> tuple[Prediction, np.ndarray | None]:
        """The prediction of one image, and a heat map of each class (classes, h, w), over the square it was cut to.

        A map is 0 where a place did not speak for the class; there are none where the network has no feature maps.
        Raises `ImageError`.
        """
        answers = self.engine(self.prepare(source)[None])
        (prediction,) = self._predictions(answers, [_name(source)])
        return prediction, None if answers.maps is None else answers.maps[0]

    def predict(self, images: Source | Iterable[Source], batch: int = 32) -> Predictions:
        """Predict one image or several: paths, bytes, open files or Pillow images, `batch` at a time.

        A bad image gives a `Prediction` with its error; the others are not disturbed.
        """
        one = isinstance(images, str | PathLike | bytes | Image.Image) or hasattr(images, "read")
        several = [images] if one else images
        return Predictions(self.predict_each(several, batch), self.vocab, self.task)

    def predict_each(self, images: Iterable[Source], batch: int = 32) -> Iterator[Prediction]:
        """The same one by one, as they come: for folders that are larger than the memory."""
        with without_warnings(), ThreadPoolExecutor(THREADS) as pool:
            try:
                for sources, prepared in self._ahead(iter(images), batch, pool):
                    yield from self._predict_batch(sources, list(prepared))
            finally:
                pool.shutdown(cancel_futures=True)

    def _ahead(
        self, stream: Iterator[Source], batch: int, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[Source], Iterable[np.ndarray | str]]]:
        """Batches of sources with what becomes of them: the pool prepares one while the one before is computed."""
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
