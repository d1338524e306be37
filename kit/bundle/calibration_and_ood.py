"""What a bundle stores beside the network: calibration, thresholds or range, and the out-of-distribution detector.

rules = answer_rules(spec, result); detector, figures = fit_ood_detector(learn, result)
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.evaluate.evaluation import MOST_KEPT, evenly
from kit.evaluate.ood import OODDetector, fit, too_few
from kit.evaluate.result import Result
from kit.files import sha256
from kit.model.build import ModelSpec, features_of, spec_of
from kit.model.heads import LINEAR
from kit.tasks.training import training_of
from kit.train.precision import precision_for

MAX_TRAIN = 400
MIN_STRATUM = 5


def answer_rules(spec: ModelSpec, result: Result) -> dict[str, Any]:
    """Fields of config.json that turn outputs into answers: a temperature, thresholds, or the range of numbers."""
    return result.answer_rules() | ({"range": spec.output_range.to_json()} if spec.output_range is not None else {})


def fit_ood_detector(learn: Any, result: Result) -> tuple[OODDetector | None, dict[str, Any]]:
    """The out-of-distribution (OOD) detector for features of `learn`, and its figures for config.json.

    Where it cannot be fitted: None, and the reason. It is fitted on at most 400 training and 200 validation images,
    evenly spaced, prepared as a bundle prepares them.
    """
    items = learn.dls.train_ds.items
    if not isinstance(items, pd.DataFrame) or not {"path", "label"} <= set(items):
        return None, {"reason": "the DataLoaders hold no table of paths and labels"}
    items, result = items[~items["path"].isin(result.missing)], result.here
    train = items.iloc[evenly(len(items), MAX_TRAIN)]
    valid = result.predictions["path"].iloc[evenly(result.n, MOST_KEPT)].tolist()
    if reason := too_few(len(train), len(valid)):
        return None, {"reason": reason}
    labels = np.array(training_of(result.task).strata(train["label"].tolist(), MIN_STRATUM))
    # Training images only give a mean and a covariance, so bf16 is exact enough for them. Validation images set the
    # threshold, with which a bundle compares features in fp32.
    spec = spec_of(learn)
    fast = precision_for(learn, spec.recipe).name == "bf16" and spec.head != LINEAR
    train_features = features_of(learn, train, precision="bf16" if fast else "fp32")
    if result.features.keys() >= set(valid):
        valid_features = np.stack([result.features[path] for path in valid])
    else:
        hashes = [sha256(Path(path)) for path in valid]
        valid_features = features_of(learn, pd.DataFrame({"path": pd.Series(valid, dtype=object), "sha256": hashes}))
    detector = fit(train_features, labels, valid_features)
    flagged = float(detector.flags(valid_features).mean())
    return detector, {"train": len(train_features), "valid": len(valid_features), "flagged": flagged}
