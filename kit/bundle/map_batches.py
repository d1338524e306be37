"""A bundle as a class for Ray Data's `map_batches`, which predicts on all cores and machines of a Ray cluster.

ray.data.from_items([{"path": "cat.jpg"}]).map_batches(ray_predictor("runs/pets"), concurrency=2)

Imports neither ray nor torch; `pip install "transfer-learning-kit[ray]"` brings Ray. apps/predict_with_ray.py uses it.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.bundle.prediction_files import arrow_table
from kit.bundle.read import load
from kit.errors import DataError
from kit.manifest import find_bundle
from kit.tasks import of

if TYPE_CHECKING:
    import pyarrow as pa


def ray_predictor(path: str | Path, device: str = "auto", engine: str = "auto", precision: str = "fp32") -> type:
    """A class that predicts batches of a Ray data set with a bundle or a run folder, which each worker loads once.

    A batch has the column "path", of paths or URLs that the worker can open, or "bytes" of image files beside it, as
    `ray.data.read_binary_files(..., include_paths=True)` gives them. The result has the columns of `kit predict --out`;
    an image that cannot be opened is a row with its error. The bundle must be at the same path on each machine.
    device, engine, precision: as in `load`. Raises `BundleError` where there is no bundle.
    """
    folder = find_bundle(path).absolute()

    class RayPredictor:
        """Loads the bundle; called with a batch of columns, it returns an Arrow table of predictions."""

        def __init__(self):
            self.predictor = load(folder, device, engine, precision=precision)

        def __call__(self, batch: dict[str, np.ndarray]) -> "pa.Table":
            if "path" not in batch:
                problem = f"the batch has the columns {', '.join(batch)}; path was expected"
                raise DataError(problem, fix='[{"path": ...}], or read_binary_files(..., include_paths=True)')
            names = [str(name) for name in batch["path"]]
            found = self.predictor.predict(list(batch.get("bytes", names)), batch=len(names))
            rows = [replace(one, path=name) for one, name in zip(found, names, strict=True)]
            return arrow_table(rows, of(self.predictor.task), self.predictor.vocab)

    return RayPredictor
