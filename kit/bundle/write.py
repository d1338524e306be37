"""From a Learner and its result to a bundle: weights, config, model card, photos; checked by predicting with it.

folder = save(learn, evaluate(learn), "pets-bundle")
"""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import kit
from kit.bundle.calibration_and_ood import answer_rules, fit_ood_detector
from kit.bundle.inference_model import Preprocess
from kit.bundle.onnx import TOLERANCE, export, largest_difference, outputs
from kit.bundle.read import load
from kit.console import say
from kit.data.datablock import image_path
from kit.data.images import open_image, prepare_image
from kit.errors import BundleError
from kit.evaluate.calibration import calibrated
from kit.evaluate.evaluation import evenly
from kit.evaluate.ood import OODDetector
from kit.evaluate.result import Result
from kit.files import atomic_folder, atomic_path, reserved, sha256, write_text
from kit.manifest import (
    CARD,
    EXAMPLES,
    FORMAT,
    MISTAKES,
    ONNX,
    TRAINED_ON,
    UNKNOWN,
    VERSION,
    WEIGHTS,
    vocab_hash,
    write_config,
)
from kit.model.build import ModelSpec, spec_of
from kit.model.weight_paths import find_path
from kit.train.state import random_state_kept
from kit.views.render import render_template
from kit.views.view import view_of

PACKAGES = ("fastai", "torch", "torchvision", "timm", "pillow", "numpy", "safetensors", "onnx", "onnxruntime")
PROOF_IMAGES = 16
PHOTO_SIZE = 480
MAX_PHOTOS = 6
OTHER_BYTES = 10_000_000  # pictures, report and tables of a run


@dataclass(frozen=True)
class TrainingData:
    """The description of the data in config.json: numbers of training and validation images, the label rule, and the
    SHA-256 of each training image, where they are known."""

    train: int
    valid: int
    label: str
    hashes: Sequence[str] = ()

    @classmethod
    def of(cls, learn: Any) -> "TrainingData":
        """The data of a learner. DataLoaders that hold no table give neither hashes nor a label rule of their own."""
        dls, items = learn.dls, learn.dls.train_ds.items
        label = getattr(items, "attrs", {}).get("label") or spec_of(learn).recipe.to_json()["label"]
        known = isinstance(items, pd.DataFrame) and "sha256" in items
        return cls(len(dls.train_ds), len(dls.valid_ds), label, sorted(items["sha256"]) if known else ())

    def to_json(self) -> dict[str, Any]:
        """The counts, and one hash over the hashes of all training images."""
        digest = hashlib.sha256("".join(self.hashes).encode()).hexdigest()
        return {"train": self.train, "valid": self.valid, "train_sha256": digest}


def save(learn: Any, result: Result, folder: str | Path, *, examples: bool = True, onnx: bool = True) -> Path:
    """Write a bundle into the new folder `folder`, and return it.

    learn: a Learner of `model.learner`; result: its own, on validation images. examples: whether the bundle holds up to
    six correct and six wrong validation images, small and without metadata. onnx: whether it holds model.onnx; where
    the network cannot be written as ONNX, a note says so. The bundle is written to a temporary folder, loaded, and must
    predict the outputs of `result` to 1e-4; config.json records this check as `proof`. Raises `BundleError` where the
    check fails and `OutputError` where the folder cannot be written; no files are left then.
    """
    with atomic_folder(Path(folder)) as partial:
        ood = fit_ood_detector(learn, result)
        spec, data = spec_of(learn), TrainingData.of(learn)
        rules = answer_rules(spec, result)
        write_bundle(partial, learn.model, spec, result, data, ood, rules, examples=examples, onnx=onnx)
    return Path(folder)


def write_bundle(
    folder: Path,
    network: nn.Module,
    spec: ModelSpec,
    result: Result,
    data: TrainingData,
    ood: tuple[OODDetector | None, dict[str, Any]],
    answers: Mapping[str, Any],
    *,
    examples: bool = True,
    onnx: bool = True,
) -> None:
    """`save` for a network without a Learner, into an empty folder; ood: the out-of-distribution detector, if there is
    one, and its figures or the reason why there is none; answers: fields of config.json that turn outputs into
    answers."""
    config = _config(spec, result, data) | answers | {"unknown": ood[1]}
    config = _write_files(network, result, folder, config, data, ood[0], examples)
    write_config(folder, config)
    write_config(folder, config | {"proof": _prove(folder, result.here)})
    if onnx:
        _add_onnx(folder, result.here)


def room_for(learn: Any, folder: Path, onnx: bool = True) -> ExitStack:
    """Keep room on the disk of `folder` for the bundle and report of a learner, until they are written after the block.

    A disk that is too full so is an `OutputError` before training, and none that fills up later takes what was learned.
    """
    weights, files = sum(tensor.nbytes for tensor in learn.model.state_dict().values()), ExitStack()
    for count in (weights, *([weights] if onnx else []), OTHER_BYTES):
        files.enter_context(reserved(folder, count))
    return files


def _write_files(
    network: nn.Module,
    result: Result,
    folder: Path,
    config: dict[str, Any],
    data: TrainingData,
    detector: OODDetector | None,
    examples: bool,
) -> dict[str, Any]:
    """Write all files of a bundle but config.json, and return its content, completed with their hashes."""
    write_weights(network, folder / WEIGHTS, {"vocab_sha256": config["vocab_sha256"]})
    if detector is not None:
        (folder / UNKNOWN).write_bytes(save_arrays(detector.arrays()))
    if examples:
        _write_photos(result.here.examples(MAX_PHOTOS), folder / EXAMPLES)
        config = config | {"mistakes": _write_mistakes(result, config, folder)}
    write_text(folder / CARD, render_template("card.md", view=view_of(config), photos=examples))
    write_text(folder / TRAINED_ON, "".join(f"{digest}\n" for digest in data.hashes))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return config | {"files": {path.relative_to(folder).as_posix(): sha256(path) for path in files}}


def write_weights(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write all tensors of a network as safetensors."""
    # Copies, because some networks use one tensor under several names, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as partial:
        partial.write_bytes(save_tensors(tensors, metadata))  # safetensors' own writing raises no OSError


def check_preparation(learn: Any) -> None:
    """Raise `BundleError` where validation images of `learn` are not prepared as a bundle would prepare them.

    To be called before training: with item or batch transforms of the user's own, a bundle may be impossible.
    """
    items, rules = learn.dls.valid_ds.items, spec_of(learn).image_rules()
    path = image_path(items.iloc[0] if isinstance(items, pd.DataFrame) else items[0])
    with random_state_kept(learn.dls):
        found = learn.dls.valid.new(bs=1, num_workers=0).one_batch()[0].cpu().as_subclass(Tensor)
    expected = Preprocess(rules)(torch.from_numpy(prepare_image(path, rules)[None]))
    if found.shape != expected.shape or (found - expected).abs().max() > TOLERANCE:
        fix = "leave validation images to size, resize and presize; or train step by step and export through fastai"
        raise BundleError("validation images are not prepared as a bundle would prepare them", fix=fix)


def _config(spec: ModelSpec, result: Result, data: TrainingData) -> dict[str, Any]:
    architecture, weights, recipe = spec.architecture, spec.weights, spec.recipe.to_json()
    # Whoever gets the bundle needs no folders of this machine: `start` has the name and hash of the weights.
    recipe |= {name: Path(recipe[name]).name for name in ("weights", "labels") if _is_file(recipe[name])}
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": result.task,
        "architecture": {"library": architecture.library, "name": architecture.full_name, "head": spec.head},
        "vocab": result.vocab,
        "vocab_sha256": vocab_hash(result.vocab),
        "label": data.label,
        "image": spec.image_rules(),
        "temperature": 1.0,
        "metrics": result.figures() | result.to_json(),
        "data": data.to_json(),
        "start": {"kind": weights.kind, "origin": weights.origin, "sha256": weights.sha256},
        "recipe": recipe,
        "versions": package_versions(),
        "files": {},
    }


def _is_file(value: str | Path | None) -> bool:
    """Whether a field of a recipe names a file or folder here, or in KIT_WEIGHTS."""
    return value is not None and (Path(value).is_absolute() or find_path(str(value)).exists())


def package_versions() -> dict[str, str]:
    """The versions of kit, Python and the packages that decide a result."""
    found = {"python": platform.python_version(), "kit": kit.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write_mistakes(result: Result, config: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Write a few wrong predictions as photos; returns label and prediction of each, for config.json."""
    rows = result.here.mistakes(MAX_PHOTOS)
    names = _write_photos(rows, folder / MISTAKES)
    pairs = zip(names, rows["label"], rows["prediction"], strict=True)
    mistakes = [{"file": name, "label": label, "prediction": prediction} for name, label, prediction in pairs]
    if "probability" not in rows:
        return mistakes
    probabilities = calibrated(replace(result, predictions=rows).outputs, config["temperature"]).max(1)
    return [
        mistake | {"probability": round(float(probability), 6)}
        for mistake, probability in zip(mistakes, probabilities, strict=True)
    ]


def _write_photos(rows: pd.DataFrame, folder: Path) -> list[str]:
    """Write the images of `rows` as small JPEGs into the new folder `folder`; returns their paths from the bundle.

    Only pixels are copied: no EXIF, no GPS position, no file name.
    """
    names = [f"{folder.name}/{folder.name.removesuffix('s')}_{number}.jpg" for number in range(1, len(rows) + 1)]
    for name, path in zip(names, rows["path"], strict=True):
        folder.mkdir(exist_ok=True)
        image = open_image(path, at_least=PHOTO_SIZE)
        image.thumbnail((PHOTO_SIZE, PHOTO_SIZE))
        Image.fromarray(np.asarray(image)).save(folder.parent / name, quality=88)
    return names


def _prove(folder: Path, result: Result) -> dict[str, Any]:
    """Load the bundle on the CPU, which every machine has, predict held-out images with it, and return the largest
    difference from `result`, which may be of a GPU."""
    if not result.n:
        return {"images": 0, "largest_difference": None}
    rows = evenly(result.n, PROOF_IMAGES)
    predictor = load(folder, "cpu", "torch")
    found = outputs(predictor, result.predictions["path"].iloc[rows].tolist())
    difference = largest_difference(predictor.config, found, result.outputs[rows])
    if not difference <= TOLERANCE:
        problem = f"the bundle does not predict what the learner did: an answer differs by {difference:.2g}"
        fix = "prepare images as the recipe says; with item_tfms or batch_tfms of your own, export through fastai"
        raise BundleError(problem, fix=fix)
    return {"images": len(rows), "largest_difference": difference}


def _add_onnx(folder: Path, result: Result) -> None:
    """Add model.onnx, checked on the same images. A network that cannot be converted leaves the bundle without it."""
    rows = evenly(result.n, PROOF_IMAGES)
    try:
        export(folder, result.predictions["path"].iloc[rows].tolist(), result.outputs[rows])
    except BundleError as error:
        say(f"note: the bundle has no {ONNX}: {error.problem}")
