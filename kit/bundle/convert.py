"""Convert a learner that was exported by plain fastai to a bundle.

folder = convert("export.pkl", "pets-bundle", labelled_images("photos", label="is_cat"), names=["dog", "cat"])

An export is a pickle: opening it runs the code in it, so only `kit convert --trust-pickle` does. The bundle keeps
weights, classes and image rules, but no functions (labelling, callbacks), and must predict what the learner predicts.
"""

import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import Categorize, CategoryMap, Learner, Normalize, PILImage, Resize, load_learner
from torch import nn

from kit.bundle.engines import torch_engine
from kit.bundle.onnx import TOLERANCE
from kit.bundle.write import TrainingData, write_bundle
from kit.data.images import open_image, prepare_image
from kit.errors import ArchitectureError, BundleError, first_line
from kit.evaluate.classification import Evaluation, check_labels
from kit.files import atomic_folder, sha256
from kit.manifest import CONVERTED
from kit.model.architectures import TORCHVISION, Architecture, find_architecture
from kit.model.build import ModelSpec
from kit.model.heads import empty_network
from kit.model.weights import WeightsSource
from kit.recipe import MAX_SIZE, Recipe

AGAIN = "export it again from fastai 2.8 with learn.export()"
MIN_IMAGES = 8
VALID = 1
BATCH = 32
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Exported:
    """A learner from an export, its classes, image rules (`recipe`), normalisation, and names that are `missing`."""

    learner: Learner
    vocab: list[str]
    recipe: Recipe
    mean: tuple[float, ...]
    std: tuple[float, ...]
    missing: list[str]


def open_export(path: Path) -> tuple[Learner, list[str]]:
    """Unpickle an export, which runs the code in it; returns the learner and the names that cannot be imported.

    Such names, like a label function of a notebook, are replaced by `Missing`, which raises only when it is called.
    """
    missing: list[str] = []

    class Lenient(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                missing.append(f"{module}.{name}")
                return type(name, (Missing,), {"__module__": module})

    lenient = ModuleType("lenient")
    lenient.__dict__.update(pickle.__dict__ | {"Unpickler": Lenient, "load": lambda file, **kw: Lenient(file).load()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            learn = load_learner(path, cpu=True, pickle_module=lenient)
        except Exception as error:
            raise BundleError(f"{path} cannot be opened as a fastai export ({error})", fix=AGAIN) from error
    if not isinstance(learn, Learner):
        raise BundleError(f"{path} holds a {type(learn).__name__}, not a Learner", fix=AGAIN)
    return learn, sorted(set(missing))


class Missing:
    """Stands for a function or class of the export that cannot be imported."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise BundleError(f"{type(self).__name__} of the export is not here", fix="run where it can be imported")


def read_export(path: Path, names: Sequence[str] | None = None, arch: str | None = None) -> Exported:
    """Open an export and read from it what a bundle needs.

    names: new names of its classes, in their order. arch: its network, where that cannot be detected. Raises
    `BundleError` for anything but a classifier of images with one class each, and for unsupported image transforms.
    """
    learn, missing = open_export(path)
    known = getattr(learn.dls, "vocab", None)
    steps = [type(step) for pipeline in learn.dls.dataset.tls for step in pipeline.tfms.fs]
    if not isinstance(known, CategoryMap) or Categorize not in steps:
        raise BundleError(
            f"{path} does not tell classes apart, one for an image", fix="only such a learner can be converted"
        )
    vocab = [str(name) for name in (names or known)]
    if len(vocab) != len(known) or len(set(vocab)) != len(vocab):
        problem = f"{len(vocab)} names for {len(known)} classes: {', '.join(map(str, known))}"
        raise BundleError(problem, fix="give as many different names, in this order")
    resize = _resize(learn.dls.valid.after_item.fs, path)
    mean, std = _normalisation(learn.dls.valid.after_batch.fs)
    size = _size(learn, resize)
    found = arch or architecture_of(learn.model, len(vocab), size)
    # The largest presize, because fastai never decodes a JPEG at reduced size.
    recipe = Recipe(arch=found, weights="none", size=size, resize=str(resize.method), presize=MAX_SIZE)
    return Exported(learn, vocab, recipe, mean, std, missing)


def _resize(transforms: Sequence[Any], path: Path) -> Resize:
    """The Resize among the item transforms; there must be exactly one."""
    found = [transform for transform in transforms if type(transform) is Resize]
    if len(found) != 1:
        problem = f"{path} resizes single images {len(found)} times; a bundle does it once"
        raise BundleError(problem, fix="only learners whose DataBlock has item_tfms=Resize(SIZE) can be converted")
    return found[0]


def _normalisation(transforms: Sequence[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the Normalize among the batch transforms; 0 and 1 where there is none."""
    for transform in transforms:
        if isinstance(transform, Normalize):
            mean, std = (tuple(map(float, values.flatten().tolist())) for values in (transform.mean, transform.std))
            return mean, std
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _size(learn: Learner, resize: Resize) -> int:
    """The size of the network's input: of batches after presizing, else of Resize."""
    sides = {int(side) for side in resize.size}
    for transform in learn.dls.valid.after_batch.fs:
        given = getattr(transform, "size", None)
        if given is not None:
            sides = {int(side) for side in (given if isinstance(given, tuple | list) else (given,))}
    if len(sides) != 1:
        raise BundleError(
            f"images of {' x '.join(map(str, sorted(sides)))} pixels", fix="only squares can be converted"
        )
    return sides.pop()


def architecture_of(model: nn.Module, classes: int, size: int) -> str:
    """The architecture of a learner's model: the one whose tensors have the same names and shapes.

    Raises `BundleError` where there is none.
    """
    named = _timm_name(model)
    for name in [named] if named else TORCHVISION:
        try:
            if _shapes(empty_network(name, classes, size)) == _shapes(model):
                return find_architecture(name).full_name
        except ArchitectureError:
            continue
    problem = f"the network {named or ''} is none that kit knows, or its head is not fastai's own".replace("  ", " ")
    raise BundleError(problem, fix="say which it is: --arch NAME")


def _timm_name(model: nn.Module) -> str | None:
    """The name in the configuration of a timm network, without the tag of its weights; None for other networks."""
    body = getattr(model[0] if isinstance(model, nn.Sequential) else model, "model", None)
    config = getattr(body, "default_cfg", None) or {}
    name = config.get("architecture") if isinstance(config, dict) else getattr(config, "architecture", None)
    return f"timm/{name}" if name else None


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


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
    if len(rows) < MIN_IMAGES:
        raise BundleError(f"{len(rows)} images to prove it on", fix=f"give at least {MIN_IMAGES}, of every class")
    with atomic_folder(Path(out)) as folder:
        exported = read_export(path, names, arch)
        check_labels(rows["label"].tolist(), exported.vocab)
        spec, paths = _spec(exported, path), rows["path"].tolist()
        network = _network(exported, spec.architecture)
        try:
            theirs = predictions_of(exported.learner, paths)
        except (AttributeError, TypeError, NotImplementedError) as error:
            gone = f"; gone are: {', '.join(exported.missing)}" if exported.missing else ""
            problem = f"the export's own transforms do not run here ({first_line(error)}){gone}"
            raise BundleError(
                problem, fix="import what it was made with, or export it without those transforms"
            ) from error
        ours = _probabilities(network, spec.image_rules(), paths)
        proof = _compare(ours, theirs, paths, tolerance)
        result = Evaluation.from_probabilities(paths, rows["label"].tolist(), ours, exported.vocab)
        data = TrainingData(
            0, len(rows), spec.recipe.label
        )  # nothing is known of the images that the export trained on
        ood = None, {"reason": "the training images of a converted model are not known"}
        write_bundle(folder, network, spec, result, data, ood, examples=examples, onnx=onnx)
    return Path(out), proof


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
