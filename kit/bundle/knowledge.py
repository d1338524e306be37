"""What a bundle knows about its own answers: how sure it may be, and which images are not like its training images.

calibration, unknown = calibration_of(evaluation), unknown_of(learn, evaluation, rules)
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from kit.bundle.engines import Engine, torch_engine
from kit.bundle.predictor import THREADS
from kit.data.images import prepare_image
from kit.data.targets import strata
from kit.evaluate.calibration import Calibration, calibrate
from kit.evaluate.evaluation import Evaluation
from kit.evaluate.features import MOST as MOST_VALID
from kit.evaluate.features import evenly
from kit.evaluate.result import Result
from kit.evaluate.thresholds import fit_thresholds
from kit.evaluate.unknown import Unknown, fit, too_few
from kit.machine import heap_kept
from kit.model.build import features_of, origin_of
from kit.model.heads import LINEAR
from kit.task import CLASSIFICATION, MULTILABEL
from kit.train.precision import precision_for

MOST_TRAIN = 400
FEWEST_ALIKE = 5
BATCH = 32


def of_task(learn: Any, result: Result) -> dict[str, Any]:
    """What config.json says of how outputs become answers: a temperature, thresholds, or the range of numbers."""
    if result.task == CLASSIFICATION:
        calibration = calibration_of(result)
        return {"temperature": calibration.temperature, "calibration": asdict(calibration)}
    if result.task == MULTILABEL:
        fitted = asdict(fit_thresholds(result.probabilities, result.truth))
        return {"thresholds": fitted.pop("values"), "thresholds_fit": fitted}
    return {"range": origin_of(learn).limits.to_json()}


def calibration_of(evaluation: Evaluation) -> Calibration:
    """The temperature of an evaluation's probabilities, and the calibration error without and with it."""
    truth = [evaluation.vocab.index(label) for label in evaluation.predictions["label"]]
    return calibrate(evaluation.probabilities, np.array(truth))


def unknown_of(learn: Any, evaluation: Result, rules: Mapping[str, Any]) -> tuple[Unknown | None, dict[str, Any]]:
    """What tells unknown images apart, and the figures for config.json; None, and why, where it cannot be learned.

    It looks at 400 training and 200 validation images at most, evenly taken, as a bundle prepares them.
    """
    items = learn.dls.train_ds.items
    if not isinstance(items, pd.DataFrame) or not {"path", "label"} <= set(items):
        return None, {"reason": "the DataLoaders hold no table of paths and labels"}
    train = items.iloc[evenly(len(items), MOST_TRAIN)]
    valid = evaluation.predictions["path"].iloc[evenly(evaluation.n, MOST_VALID)].tolist()
    if reason := too_few(len(train), len(valid)):
        return None, {"reason": reason}
    labels = np.array(strata(train["label"].tolist(), evaluation.task, FEWEST_ALIKE))
    if origin_of(learn).head == LINEAR:
        known, held_out = features_of(learn, train), np.stack([evaluation.features[path] for path in valid])
        return _fitted(known, labels, held_out)
    quick = "bf16" if precision_for(learn, origin_of(learn).recipe).name == "bf16" else "fp32"
    # What is known is a mean and a covariance, in which rounding drowns; the threshold is set as a bundle will compare.
    known = features(torch_engine(learn.model, rules, learn.dls.device, quick), train["path"].tolist(), rules)
    if evaluation.features.keys() >= set(valid):
        held_out = np.stack([evaluation.features[path] for path in valid])
    else:
        held_out = features(torch_engine(learn.model, rules, learn.dls.device), valid, rules)
    return _fitted(known, labels, held_out)


def _fitted(known: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> tuple[Unknown, dict[str, Any]]:
    unknown = fit(known, labels, held_out)
    flagged = float(unknown.flags(held_out).mean())
    return unknown, {"train": len(known), "valid": len(held_out), "flagged": flagged}


def features(engine: Engine, paths: Sequence[str], rules: Mapping[str, Any]) -> np.ndarray:
    """The features (n, f) of images, decoded by several threads, a batch at a time."""
    with heap_kept(), ThreadPoolExecutor(THREADS) as pool:
        parts = [
            engine(
                np.stack(list(pool.map(lambda path: prepare_image(path, rules), paths[start : start + BATCH])))
            ).features
            for start in range(0, len(paths), BATCH)
        ]
    return np.concatenate(parts)
