"""Convert a learner that was exported by plain fastai to a bundle.

exported = read_export("export.pkl", names=["dog", "cat"])
folder, proof = convert(exported, "pets-bundle", labelled_images("photos", label="is_cat"))

An export is a pickle: opening it runs the code in it, so only `kit convert --trust-pickle` does. The bundle keeps
weights, classes and image rules, but no functions (labelling, callbacks), and must predict what the learner predicts.
"""

import io
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import (
    AffineCoordTfm,
    IntToFloatTensor,
    Learner,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
    RandomResizedCropGPU,
    Resize,
    ToTensor,
    load_learner,
)
from fastai.vision.core import PILBase
from PIL import Image
from torch import Tensor, nn

from kit.bundle.engines import torch_engine
from kit.bundle.onnx import TOLERANCE
from kit.bundle.write import TrainingData, write_bundle
from kit.data.images import FILTER, open_image, prepare_image
from kit.errors import ArchitectureError, BundleError, KitError, first_line, some_of
from kit.evaluate.evaluation import result_of_predictions
from kit.files import atomic_folder, sha256
from kit.manifest import CONVERTED, input_size
from kit.model.architectures import TORCHVISION, Body, build_network, cut_body, find_architecture
from kit.model.build import ModelSpec
from kit.model.heads import Head, described, with_head
from kit.model.weights import WeightsSource
from kit.recipe import MAX_SIZE, Recipe
from kit.tasks import Prediction, of
from kit.tasks.text import CLASSIFICATION, HALF, MULTILABEL, readable
from kit.tasks.training import training_of

AGAIN = "export it again from fastai 2.8 with learn.export()"
KEEP = "use it with fastai: kit converts classifiers of vision_learner, with CategoryBlock or MultiCategoryBlock"
MIN_IMAGES = 8
TRAIN, VALID = 0, 1
BATCH = 32
CPU = torch.device("cpu")
TASKS = {"Categorize": CLASSIFICATION, "MultiCategorize": MULTILABEL, "EncodedMultiCategorize": MULTILABEL}
# What a learner predicts whose labels go through such a transform.
OTHERS = {
    "RegressionSetup": "numbers (RegressionBlock)",
    "PointScaler": "points (PointBlock)",
    "BBoxLabeler": "boxes (BBoxBlock)",
    "AddMaskCodes": "a class for each pixel (MaskBlock)",
}


@dataclass(frozen=True)
class Exported:
    """A learner from an export, what its bundle is made of, and the names in the export that are `missing` here.

    image: the class as which it opens images, grey or RGB. answers: fields of config.json that turn outputs into
    answers.
    """

    learner: Learner
    vocab: list[str]
    spec: ModelSpec
    network: nn.Module
    image: type[PILBase]
    answers: dict[str, Any]
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


def read_export(path: str | Path, names: Sequence[str] | None = None, arch: str | None = None) -> Exported:
    """Open an export and read from it what a bundle needs.

    names: new names of its classes, in their order. arch: its network, where that cannot be detected. Raises
    `BundleError` for anything but a classifier of images, and for transforms and layers that a bundle does not have.
    """
    path = Path(path)
    learn, missing = open_export(path)
    try:
        image, task, vocab = _image_class(learn), _task(learn), _vocab(learn, names)
        rules = _item_rules(learn, missing) | ({"grey": True} if image._open_args["mode"] == "L" else {})
        rules |= _batch_rules(learn, rules["size"], missing)
        size = input_size(rules)
        network, found, head = _network(learn.model, arch, size, len(vocab))
        # The largest presize, because fastai never decodes a JPEG at reduced size.
        recipe = Recipe(task=task, arch=found, weights="none", size=size, presize=MAX_SIZE)
    except KitError as error:
        raise BundleError(f"{path} cannot be converted: {error.problem}", fix=error.fix) from error
    mean, std = _normalisation(learn.dls.valid.after_batch.fs)
    weights = WeightsSource(path.name, CONVERTED, f"fastai export {path.name}", mean, std, sha256(path))
    spec = ModelSpec(recipe, find_architecture(found), weights, head=head, image=rules)
    answers = {"thresholds": [getattr(learn.loss_func, "thresh", HALF)] * len(vocab)} if task == MULTILABEL else {}
    return Exported(learn, vocab, spec, network, image, answers, missing)


def _image_class(learn: Learner) -> type[PILBase]:
    """The class as which a learner opens images, found with a small image."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    try:
        opened = learn.dls.dataset.tls[0].tfms.fs[-1](png.getvalue()) if learn.dls.n_inp == 1 else None
    except Exception:
        opened = None
    if not isinstance(opened, PILBase) or opened.mode not in ("RGB", "L"):
        raise BundleError("its input is not one RGB or grey image", fix=KEEP)
    return type(opened)


def _task(learn: Learner) -> str:
    """The task, whose activation must be that of the learner's loss."""
    lists = learn.dls.dataset.tls
    steps = [_name(step) for part in lists[1:] for step in part.tfms.fs]
    for step in (*steps, *map(_name, learn.dls.valid.after_item.fs)):
        if step in OTHERS:
            raise BundleError(f"it predicts {OTHERS[step]}, not classes of an image", fix=KEEP)
    tasks = [TASKS[step] for step in steps if step in TASKS]
    if len(lists) != 2 or len(tasks) != 1:
        raise BundleError(f"its labels are made by {some_of(steps)}, not by one block of classes", fix=KEEP)
    activation, logits = getattr(learn.loss_func, "activation", None), torch.tensor([[-1.0, 0.5, 2.0]])
    if activation and not torch.allclose(activation(logits), of(tasks[0]).activation(logits)):
        problem = f"its loss, {_name(learn.loss_func)}, makes other probabilities than kit does for {tasks[0]}"
        raise BundleError(problem, fix="use it with fastai, or train it with fastai's default loss")
    return tasks[0]


def _vocab(learn: Learner, names: Sequence[str] | None) -> list[str]:
    known = list(map(str, learn.dls.vocab))
    vocab = [readable(name) for name in names or known]
    if len(vocab) != len(known) or len(set(vocab)) != len(vocab):
        problem = f"{len(vocab)} names for {len(known)} classes: {', '.join(known)}"
        raise BundleError(problem, fix="give as many different names, in this order")
    return vocab


def _item_rules(learn: Learner, missing: Sequence[str]) -> dict[str, Any]:
    """`size`, `resize` and `part` of the image rules: what the item transforms do with validation images."""
    rules: dict[str, Any] = {}
    for transform in _used(learn.dls.valid.after_item.fs, ToTensor):
        if isinstance(transform, Resize | RandomResizedCrop) and not rules and transform.mode == FILTER:
            rules["size"] = _side(transform.size)
            if isinstance(transform, Resize):
                padding = "pad" if transform.pad_mode == "zeros" else f"pad-{transform.pad_mode}"
                rules["resize"] = padding if transform.method == "pad" else str(transform.method)
            else:
                transform.before_call(Image.new("RGB", (8, 8)), VALID)  # computes the size of which the middle is kept
                rules |= {"resize": "squish", "part": rules["size"] / transform.final_size[0]}
        elif isinstance(transform, RandomCrop) and rules and _side(transform.size) in range(rules["size"], 0, -2):
            side = _side(transform.size)
            rules |= {"size": side, "part": rules.get("part", 1.0) * side / rules["size"]}
        else:
            _refuse(transform, missing, "item_tfms=Resize(SIZE), or RandomResizedCrop(SIZE)")
    if not rules:
        raise BundleError("it resizes no image before a batch is made", fix="train it with item_tfms=Resize(SIZE)")
    return rules


def _batch_rules(learn: Learner, size: int, missing: Sequence[str]) -> dict[str, int]:
    """`input` of the image rules, where batch transforms resample validation images to another size."""
    rules: dict[str, int] = {}
    for transform in _used(learn.dls.valid.after_batch.fs, IntToFloatTensor, Normalize):
        known = isinstance(transform, AffineCoordTfm | RandomResizedCropGPU)
        if known and transform.size is None:
            continue
        exact = known and transform.mode == "bilinear" and getattr(transform, "align_corners", True)
        if not exact or rules or getattr(transform, "valid_scale", 1) != 1:
            _refuse(transform, missing, "batch_tfms=aug_transforms(size=SIZE)")
        if _side(transform.size) != size:
            rules["input"] = _side(transform.size)
    return rules


def _used(transforms: Sequence[Any], *plain: type) -> list[Any]:
    """The transforms that are used for validation images, without those of the classes `plain`."""
    return [one for one in transforms if getattr(one, "split_idx", None) != TRAIN and not isinstance(one, plain)]


def _refuse(transform: Any, missing: Sequence[str], known: str) -> NoReturn:
    problem = f"its transform {first_line(str(transform))} prepares validation images as no bundle does"
    gone = f"; gone are: {', '.join(missing)}" if missing else ""
    raise BundleError(f"{problem}{gone}", fix=f"use it with fastai, or train it with {known}")


def _name(step: Any) -> str:
    name = type(step).__name__
    return str(step).split("(")[0] if name == "Transform" else name


def _side(size: Any) -> int:
    width, height = (size, size) if isinstance(size, int) else size
    if width != height:
        problem = f"its images are {width} pixels wide and {height} high"
        raise BundleError(problem, fix="only squares can be converted, such as Resize(224)")
    return int(width)


def _normalisation(transforms: Sequence[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of three channels from the Normalize among the batch transforms; 0 and 1 where there is none."""
    for transform in transforms:
        if isinstance(transform, Normalize):
            mean, std = (tuple(one.flatten().expand(3).tolist()) for one in (transform.mean, transform.std))
            return mean, std
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _network(model: nn.Module, arch: str | None, size: int, classes: int) -> tuple[nn.Module, str, Head]:
    """kit's own network with the learner's weights, the name of its architecture, and its head.

    The body is `arch`, or the one whose tensors have the same names and shapes.
    """
    if not isinstance(model, nn.Sequential) or len(model) != 2:
        problem = f"its network is a {type(model).__name__}, not a body and a head as vision_learner makes them"
        raise ArchitectureError(problem, fix=KEEP)
    state = _of_three_channels(model[0].state_dict())
    architecture = find_architecture(arch or _timm_name(model[0]) or _torchvision_name(state))
    body = cut_body(build_network(architecture), architecture, size)
    try:
        body.module.load_state_dict(state)
    except RuntimeError as error:
        problem = f"the weights of its body do not fit the network {architecture.name}"
        raise ArchitectureError(problem, fix="say which it is: --arch NAME") from error
    head = _head(model[1], body, classes)
    network = with_head(body, classes, kind=head)
    network[1].load_state_dict(dict(zip(network[1].state_dict(), model[1].state_dict().values(), strict=True)))
    return network.eval(), architecture.full_name, head


def _torchvision_name(state: Mapping[str, Tensor]) -> str:
    """The network of torchvision whose body has tensors of these names and shapes. Raises `ArchitectureError`."""
    shapes = {name: tensor.shape for name, tensor in state.items()}
    with torch.device("meta"):
        for name, architecture in TORCHVISION.items():
            body = cut_body(build_network(architecture), architecture, 0).module
            if {name: tensor.shape for name, tensor in body.state_dict().items()} == shapes:
                return name
    problem = f"its body is none of {', '.join(TORCHVISION)}, and not made by timm"
    raise ArchitectureError(problem, fix="use it with fastai, or train one of these, or one of timm by its name")


def _timm_name(body: nn.Module) -> str | None:
    """The name in the configuration of a timm network, without the tag of its weights; None for other networks."""
    config = getattr(getattr(body, "model", None), "default_cfg", None) or {}
    name = config.get("architecture") if isinstance(config, dict) else getattr(config, "architecture", None)
    return f"timm/{name}" if name else None


def _of_three_channels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a body. One for grey images gets three equal channels, whose sum is its own."""
    first = next((name for name, tensor in state.items() if tensor.ndim == 4), None)
    grey = first and state[first].shape[1] == 1
    return dict(state) | ({first: state[first].expand(-1, 3, -1, -1) / 3} if grey else {})


def _head(head: nn.Module, body: Body, classes: int) -> Head:
    """The layers of a head: pooling, where the body has none, and layers after it. Raises `ArchitectureError`."""
    layers = described(head)
    names, outputs = [name for name, *_ in layers], [values[1] for name, *values in layers if name == "linear"]
    pooling = [] if body.pooled else names[:1]
    start = [] if body.pooled else [*pooling, "flatten"]
    rest = names[len(start) :]
    if names[: len(start)] != start or not all(name.endswith("pooling") for name in pooling):
        raise ArchitectureError(f"its head begins with {some_of(names)}, not with pooling", fix=KEEP)
    if rest[-1:] not in (["linear"], ["batch norm"]) or outputs[-1:] != [classes]:
        problem = f"its head ends in {layers[-1]}, not in a linear layer of {classes} outputs"
        raise ArchitectureError(problem, fix=KEEP)
    return layers


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
    exported: Exported,
    out: str | Path,
    rows: pd.DataFrame,
    *,
    tolerance: float = TOLERANCE,
    examples: bool = True,
    onnx: bool = True,
) -> tuple[Path, Proof]:
    """Convert an export to a bundle in the new folder `out`; returns the folder and the comparison.

    rows: at least 8 labelled images (path, label), on which the predictions are compared and the figures are measured.
    tolerance: the largest accepted difference of a probability. Raises `BundleError`.
    """
    spec, vocab, paths = exported.spec, exported.vocab, rows["path"].tolist()
    task = spec.recipe.task
    if len(rows) < MIN_IMAGES:
        raise BundleError(f"{len(rows)} images to prove it on", fix=f"give at least {MIN_IMAGES}, of every class")
    if unknown := sorted(set(training_of(task).count(rows["label"])) - set(vocab)):
        problem = f"labels that the export never saw: {some_of(unknown)}; its classes are: {', '.join(vocab)}"
        fix = f"correct the labels (--label), or rename the classes, in this order: --names {','.join(vocab)}"
        raise BundleError(problem, fix=fix)
    config = {"task": task, "vocab": vocab} | exported.answers
    with atomic_folder(Path(out)) as folder:
        theirs, ours = predictions_of(exported, paths), _probabilities(exported, paths)
        proof = _compare(ours, theirs, paths, tolerance)
        answers = [of(task).answer(dict(zip(vocab, row.tolist(), strict=True)), config) for row in ours]
        predictions = [Prediction(path, **answer) for path, answer in zip(paths, answers, strict=True)]
        result = result_of_predictions(predictions, rows["label"].tolist(), config)
        # Nothing is known of the images that the export was trained on.
        data = TrainingData(0, len(rows), spec.recipe.label)
        ood = None, {"reason": "the training images of a converted model are not known"}
        write_bundle(folder, exported.network, spec, result, data, ood, exported.answers, examples=examples, onnx=onnx)
    return Path(out), proof


def predictions_of(exported: Exported, paths: Sequence[str]) -> np.ndarray:
    """The learner's own probabilities (n, classes), in float64, through its own transforms of validation images.

    Files are opened by kit, because fastai ignores the EXIF orientation.
    """
    learn, parts = exported.learner, []
    loader = learn.dls.valid
    for pipeline in (loader.after_item, loader.after_batch):
        pipeline.split_idx = VALID
    model, activation = learn.model.eval().float(), of(exported.spec.recipe.task).activation
    for start in range(0, len(paths), BATCH):
        images = [open_image(path).convert(exported.image._open_args["mode"]) for path in paths[start : start + BATCH]]
        items = [loader.after_item((exported.image(image),)) for image in images]
        (batch,) = loader.after_batch(loader.create_batch(items))
        with torch.no_grad():
            parts.append(activation(model(batch.as_subclass(Tensor).float()).double()).numpy())
    return np.concatenate(parts)


def _probabilities(exported: Exported, paths: Sequence[str]) -> np.ndarray:
    """Probabilities (n, classes), float64, computed as a bundle computes them."""
    rules = exported.spec.image_rules()
    engine = torch_engine(exported.network, rules, CPU, task=exported.spec.recipe.task)
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
        raise BundleError(problem, fix="use it with fastai; --tolerance says which difference is accepted")
    return proof
