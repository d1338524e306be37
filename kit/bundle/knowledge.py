"""What a bundle knows about its own answers: how sure it may be, and which images are not like its training images.

calibration, unknown = calibration_of(evaluation), unknown_of(learn, evaluation, rules)
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.data.targets import strata
from kit.evaluate.calibration import Calibration, calibrate
from kit.evaluate.evaluation import MOST_KEPT, Evaluation, evenly
from kit.evaluate.result import Result
from kit.evaluate.thresholds import fit_thresholds
from kit.evaluate.unknown import Unknown, fit, too_few
from kit.files import sha256
from kit.model.build import features_of, origin_of
from kit.model.heads import LINEAR
from kit.task import CLASSIFICATION, MULTILABEL
from kit.train.precision import precision_for

MOST_TRAIN = 400
FEWEST_ALIKE = 5


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
    valid = evaluation.predictions["path"].iloc[evenly(evaluation.n, MOST_KEPT)].tolist()
    if reason := too_few(len(train), len(valid)):
        return None, {"reason": reason}
    labels = np.array(strata(train["label"].tolist(), evaluation.task, FEWEST_ALIKE))
    # Of the training images a mean and a covariance are learned, in which rounding is lost; the validation images set
    # the threshold, as a bundle will compare them.
    quick = precision_for(learn, origin_of(learn).recipe).name == "bf16" and origin_of(learn).head != LINEAR
    known = features_of(learn, train, precision="bf16" if quick else "fp32")
    kept = evaluation.features
    if kept.keys() >= set(valid):
        held_out = np.stack([kept[path] for path in valid])
    else:
        rows = pd.DataFrame({"path": valid, "sha256": [sha256(Path(path)) for path in valid]})
        held_out = features_of(learn, rows)
    unknown = fit(known, labels, held_out)
    flagged = float(unknown.flags(held_out).mean())
    return unknown, {"train": len(known), "valid": len(held_out), "flagged": flagged}
