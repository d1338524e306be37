"""Convert a learner that was exported by plain fastai to a bundle.

folder = convert("export.pkl", "pets-bundle", labelled_images("photos", label="is_cat"), names=["dog", "cat"])

The export is unpickled once, which runs code in it. The bundle keeps weights, classes and image rules, but no functions
(labelling, callbacks), and must predict what the learner predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import Learner, PILImage
from torch import nn

from kit.bundle.engines import torch_engine
from kit.bundle.exports import Exported, read_export
from kit.bundle.onnx import TOLERANCE
from kit.bundle.write import TrainingData, save_network
from kit.data.images import open_image, prepare_image
from kit.errors import BundleError, first_line
from kit.evaluate.classification import Evaluation, check_labels
from kit.files import sha256
from kit.manifest import CONVERTED
from kit.model.architectures import Architecture, find_architecture
from kit.model.build import ModelSpec
from kit.model.heads import empty_network
from kit.model.weights import WeightsSource

FEWEST_IMAGES = 8
VALID = 1
BATCH = 32
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Proof:
    """Differences between the predictions of a bundle and of the export: the largest of a probability, and in how many
    images the class differs."""

    images: int
    largest_difference: float
    other_classes: int

    def __str__(self) -> str:
        return (
            f"a probability differs by up to {self.largest_difference:.1e}, "
            f"and {self.other_classes} of {self.images} images get another class"
        )


def convert(
    path: str | Path,
    out: str | Path,
    rows: pd.DataFrame,
    *,
    names: Sequence[str] | None = None,
    arch: str | None = None,
    tolerance: float = TOLERANCE,
    examples: bool = True,
    onnx: bool = True,
) -> tuple[Path, Proof]:
    """Convert the export at `path` to a bundle in the new folder `out`; returns the folder and the comparison.

    rows: at least 8 labelled images (path, label), on which the predictions are compared and the error rate is
    measured. names, arch: of the classes and the network, where the export does not say. tolerance: the largest
    accepted difference of a probability. Raises `BundleError`.
    """
    path = Path(path)
    if len(rows) < FEWEST_IMAGES:
        raise BundleError(f"{len(rows)} images to prove it on", fix=f"give at least {FEWEST_IMAGES}, of every class")
    exported = read_export(path, names, arch)
    check_labels(rows["label"].tolist(), exported.vocab)
    spec, paths = _spec(exported, path), rows["path"].tolist()
    network = _network(exported, spec.architecture)
    try:
        theirs = predictions_of(exported.learner, paths)
    except (AttributeError, TypeError, NotImplementedError) as error:
        gone = f"; gone are: {', '.join(exported.missing)}" if exported.missing else ""
        problem = f"the export's own transforms do not run here ({first_line(error)}){gone}"
        raise BundleError(problem, fix="import what it was made with, or export it without those transforms") from error
    ours = _probabilities(network, spec.image_rules(), paths)
    proof = _compare(ours, theirs, paths, tolerance)
    result = Evaluation.from_probabilities(paths, rows["label"].tolist(), ours, exported.vocab)
    data = TrainingData(0, len(rows), spec.recipe.label)  # nothing is known of the images that the export trained on
    ood = None, {"reason": "the training images of a converted model are not known"}
    return save_network(network, spec, result, out, data, ood, examples=examples, onnx=onnx), proof


def predictions_of(learn: Learner, paths: Sequence[str]) -> np.ndarray:
    """The export's own probabilities (n, classes), in float64, through its own transforms of validation images.

    Files are opened by kit, because fastai ignores the EXIF orientation.
    """
    loader, parts = learn.dls.valid, []
    for pipeline in (loader.after_item, loader.after_batch):
        pipeline.split_idx = VALID
    model = learn.model.eval().float()
    for start in range(0, len(paths), BATCH):
        items = [loader.after_item((PILImage(open_image(path)),)) for path in paths[start : start + BATCH]]
        (batch,) = loader.after_batch(loader.create_batch(items))
        with torch.no_grad():
            parts.append(model(batch.as_subclass(torch.Tensor).float()).double().softmax(1).numpy())
    return np.concatenate(parts)


def _network(exported: Exported, architecture: Architecture) -> nn.Module:
    """kit's own network with the export's weights."""
    network = empty_network(architecture.full_name, len(exported.vocab), exported.recipe.size)
    try:
        network.load_state_dict(exported.learner.model.state_dict())
    except RuntimeError as error:
        problem = f"the export's weights do not fit the network {architecture.full_name} with fastai's head"
        raise BundleError(
            problem, fix="say which network it is: --arch NAME; other heads cannot be converted"
        ) from error
    return network.eval()


def _probabilities(network: nn.Module, rules: dict[str, Any], paths: Sequence[str]) -> np.ndarray:
    """Probabilities (n, classes), float64, computed as a bundle computes them."""
    engine = torch_engine(network, rules, CPU)
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    parts = [engine(np.stack([prepare_image(path, rules) for path in batch])).outputs for batch in batches]
    return np.concatenate(parts).astype(np.float64)


def _compare(ours: np.ndarray, theirs: np.ndarray, paths: Sequence[str], tolerance: float) -> Proof:
    """The differences; `BundleError` where a probability differs by more than `tolerance`."""
    gaps = np.abs(ours - theirs).max(1)
    worst = int(gaps.argmax())
    proof = Proof(len(paths), float(gaps[worst]), int((ours.argmax(1) != theirs.argmax(1)).sum()))
    if not proof.largest_difference <= tolerance:
        problem = f"a bundle would not predict as the export does: {proof}, most on {Path(paths[worst]).name}"
        fix = (
            "after presizing, where fastai cuts images twice, some difference is left: --tolerance 0.1 accepts so much"
        )
        raise BundleError(problem, fix=fix)
    return proof


def _spec(exported: Exported, path: Path) -> ModelSpec:
    origin = f"fastai export {path.name}"
    weights = WeightsSource(path.name, CONVERTED, origin, exported.mean, exported.std, sha256(path))
    return ModelSpec(exported.recipe, find_architecture(exported.recipe.arch), weights)
