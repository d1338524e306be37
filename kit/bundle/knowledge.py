"""What a bundle knows about its own answers: how sure it may be, and which images are not like its training images.

calibration, unknown = calibration_of(evaluation), unknown_of(learn, evaluation, rules)
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from kit.bundle.engines import Engine, torch_engine
from kit.bundle.predictor import THREADS, prepare_image
from kit.evaluate.calibration import Calibration, calibrate
from kit.evaluate.evaluation import Evaluation
from kit.evaluate.unknown import Unknown, fit, too_few

MOST_TRAIN, MOST_VALID = 400, 200
BATCH = 32


def calibration_of(evaluation: Evaluation) -> Calibration:
    """The temperature of an evaluation's probabilities, and the calibration error without and with it."""
    truth = [evaluation.vocab.index(label) for label in evaluation.predictions["label"]]
    return calibrate(evaluation.probabilities, np.array(truth))


def unknown_of(learn: Any, evaluation: Evaluation, rules: Mapping[str, Any]) -> tuple[Unknown | None, dict[str, Any]]:
    """What tells unknown images apart, and the figures for config.json; None, and why, where it cannot be learned.

    It looks at 400 training and 200 validation images at most, evenly taken, as a bundle prepares them.
    """
    items = learn.dls.train_ds.items
    if not isinstance(items, pd.DataFrame) or not {"path", "label"} <= set(items):
        return None, {"reason": "the DataLoaders hold no table of paths and labels"}
    train = items.iloc[evenly(len(items), MOST_TRAIN)]
    valid = evaluation.predictions["path"].iloc[evenly(evaluation.n, MOST_VALID)]
    if reason := too_few(len(train), len(valid)):
        return None, {"reason": reason}
    engine = torch_engine(learn.model, rules, learn.dls.device)
    known = features(engine, train["path"].tolist(), rules)
    held_out = features(engine, valid.tolist(), rules)
    unknown = fit(known, train["label"].to_numpy(), held_out)
    flagged = float(unknown.flags(held_out).mean())
    return unknown, {"train": len(train), "valid": len(valid), "flagged": flagged}


def features(engine: Engine, paths: Sequence[str], rules: Mapping[str, Any]) -> np.ndarray:
    """The features (n, f) of images, decoded by several threads, a batch at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [
            engine(
                np.stack(list(pool.map(lambda path: prepare_image(path, rules), paths[start : start + BATCH])))
            ).features
            for start in range(0, len(paths), BATCH)
        ]
    return np.concatenate(parts)


def evenly(count: int, most: int) -> np.ndarray:
    """The numbers of at most `most` of `count` rows, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
