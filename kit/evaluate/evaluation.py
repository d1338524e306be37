"""Evaluation of a learner, or of the predictions of a bundle, on labelled images.

result = evaluate(learn); result.error_rate      # 0.0541 (n=74, 95 % 0.0212-0.1308)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kit.errors import DataError, TrainingError
from kit.evaluate.classification import Evaluation
from kit.evaluate.multilabel import MultiLabelEvaluation
from kit.evaluate.regression import RegressionEvaluation
from kit.evaluate.result import Result
from kit.machine import fp32_convolutions, keep_freed_memory
from kit.tasks.text import CLASSIFICATION

MOST_KEPT = 200  # images whose features stay with a result
RESULTS: dict[str, type[Result]] = {
    kind.task: kind for kind in (Evaluation, MultiLabelEvaluation, RegressionEvaluation)
}


def evaluate(learn: Any, rows: pd.DataFrame | None = None) -> Result:
    """Predict the validation images of a fastai Learner, or labelled `rows` of a table, in fp32.

    The task's activation turns logits into probabilities. A learner made by `kit.model.learner` is evaluated on the
    features of its body, which may be cached; those of at most 200 images are kept with the result, for the bundle's
    out-of-distribution detector. TF32 is off, so that a GPU and a CPU give the same result.
    """
    from torch import nn

    from kit.model.build import prepared_by_kit
    from kit.train.data_parallel import divided

    loader = learn.dls.valid if rows is None else learn.dls.test_dl(rows, with_labels=True)
    spec = getattr(learn, "spec", None)
    if spec is not None and type(learn.model) is nn.Sequential and prepared_by_kit(loader, spec.weights):
        return _from_features(learn, loader)
    parallel = divided(learn, loaders=[loader])
    with learn.no_bar(), learn.no_logging(), keep_freed_memory(), fp32_convolutions(), parallel as callbacks:
        outputs, targets = learn.get_preds(dl=loader, act=lambda output: output, cbs=callbacks)
    return result_of(learn, _paths(loader.items), outputs, targets)


def _from_features(learn: Any, loader: Any) -> Result:
    """The result of a learner's body and head, from features of the body."""
    import torch

    from kit.model.build import features_of
    from kit.model.heads import classifier

    table, labels = loader.items, loader.dataset.tls[1]
    features = features_of(learn, table)
    network = learn.model.to(learn.dls.device).eval()  # a learner that was never trained has it on the CPU
    with torch.inference_mode():
        outputs = classifier(network)(torch.from_numpy(features).to(learn.dls.device)).cpu()
    targets = torch.stack([labels[number] for number in range(len(table))])
    some, paths = evenly(len(table), MOST_KEPT), _paths(table)
    return replace(result_of(learn, paths, outputs, targets), features={paths[one]: features[one] for one in some})


def evenly(count: int, most: int) -> np.ndarray:
    """The indices of at most `most` of `count` rows, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def result_of(learn: Any, paths: Sequence[str], outputs: Any, targets: Any) -> Result:
    """The result of a learner's outputs (images, outputs) and the targets that fastai made of the labels.

    Raises `TrainingError` where outputs are not finite.
    """
    import torch

    if not torch.isfinite(outputs).all():
        fix = "train with a lower rate, for example a tenth of it (--rate)"
        raise TrainingError("the network's outputs are not finite: training diverged", fix=fix)
    outputs = outputs.double()
    spec, vocab = getattr(learn, "spec", None), [str(name) for name in learn.dls.vocab]
    task, output_range = (spec.recipe.task, spec.output_range) if spec else (CLASSIFICATION, None)
    return RESULTS[task].from_outputs(paths, outputs, targets, vocab, output_range)


def result_of_predictions(predictions: Sequence[Any], labels: Sequence[str], config: Mapping[str, Any]) -> Result:
    """The result of a bundle's predictions, none with an error, compared with labels. config: of the bundle.

    Raises `DataError` where there is no prediction.
    """
    if not predictions:
        raise DataError("no image could be predicted", fix="give a folder with labelled images that open")
    return RESULTS[config["task"]].from_predictions(predictions, labels, config)


def _paths(items: Any) -> list[str]:
    return items["path"].tolist() if isinstance(items, pd.DataFrame) else [str(item) for item in items]
