"""From a Learner and its Evaluation to a bundle: weights, config, model card, photos; proven before it is done.

folder = save(learn, evaluate(learn), "pets-bundle")
"""

import hashlib
import platform
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.numpy import save as save_arrays
from safetensors.torch import save_file

import kit
from kit.bundle.knowledge import of_task, unknown_of
from kit.bundle.onnx import TOLERANCE, export, largest_difference, outputs
from kit.bundle.read import load
from kit.console import say
from kit.data.datablock import image_path
from kit.data.images import open_image, prepare_image
from kit.errors import BundleError
from kit.evaluate.calibration import calibrated
from kit.evaluate.evaluation import evenly
from kit.evaluate.result import Result
from kit.files import atomic_path, new_folder, sha256, write_text
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
from kit.model.build import image_rules, origin_of
from kit.views.render import render_template
from kit.views.view import view_of

PACKAGES = ("fastai", "torch", "torchvision", "timm", "pillow", "numpy", "safetensors", "onnx", "onnxruntime")
PROOF_IMAGES = 16
PHOTO_SIZE = 480
MOST_PHOTOS = 6


def save(learn: Any, evaluation: Result, folder: str | Path, *, examples: bool = True, onnx: bool = True) -> Path:
    """Write a bundle into the new folder `folder`, and return it.

    learn: a Learner of `model.learner`; evaluation: its own, on validation images. examples: whether a few validation
    images go along, right and wrong ones, small and without metadata: they are then shared with the bundle. onnx:
    whether model.onnx goes along; where the network cannot be written as ONNX, a line says so. The bundle is first
    written beside its place, loaded, and must predict what the evaluation says, to 1e-4; config.json records that
    proof. Raises `BundleError` where it does not, or `OutputError`; then nothing is left.
    """
    folder = Path(folder)
    new_folder(folder).rmdir()
    partial = new_folder(folder.with_name(f".{folder.name}.partial"))
    try:
        config = _write_files(learn, evaluation, partial, examples)
        write_config(partial, config)
        write_config(partial, config | {"proof": _prove(partial, evaluation)})
        if onnx:
            _add_onnx(partial, evaluation)
        return partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(learn: Any, evaluation: Result, folder: Path, examples: bool) -> dict[str, Any]:
    """All files of a bundle but config.json, which is returned: it names them by their hashes."""
    vocab = [str(name) for name in learn.dls.vocab]
    # Copies, because some networks use one tensor under several names, and a file of safetensors cannot.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in learn.model.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as partial:
        save_file(tensors, partial, metadata={"vocab_sha256": vocab_hash(vocab)})
    unknown, figures = unknown_of(learn, evaluation, image_rules(origin_of(learn)))
    if unknown is not None:
        (folder / UNKNOWN).write_bytes(save_arrays(unknown.arrays()))
    config = _config(learn, evaluation, vocab) | of_task(learn, evaluation) | {"unknown": figures}
    if examples:
        _write_photos(evaluation.examples(MOST_PHOTOS), folder / EXAMPLES)
        config |= {"mistakes": _write_mistakes(evaluation, config, folder)}
    write_text(folder / CARD, render_template("card.md", view=view_of(config), photos=examples))
    write_text(folder / TRAINED_ON, "".join(f"{digest}\n" for digest in _trained_on(learn.dls)))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return config | {"files": {path.relative_to(folder).as_posix(): sha256(path) for path in files}}


def check_preparation(learn: Any) -> None:
    """Raise `BundleError` where validation images of `learn` are not prepared as a bundle would prepare them.

    To be asked before training: with transforms of one's own the learner may be fine and a bundle impossible.
    """
    path, rules = image_path(first_of(learn.dls.valid_ds.items)), image_rules(origin_of(learn))
    with _random_state_kept():
        seen = learn.dls.valid.new(bs=1, num_workers=0).one_batch()[0][0].cpu().numpy()
    ours = normalised(prepare_image(path, rules), rules)
    if seen.shape != ours.shape or np.abs(seen - ours).max() > TOLERANCE:
        fix = "leave validation images to size, resize and presize; or train step by step and export through fastai"
        raise BundleError("validation images are not prepared as a bundle would prepare them", fix=fix)


def normalised(pixels: np.ndarray, rules: Mapping[str, Any]) -> np.ndarray:
    """uint8 (size, size, 3) to float32 (3, size, size), with the mean and std of the rules: what a network sees."""
    mean, std = (np.array(rules[name], np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
    return (pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255) - mean) / std


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Nothing that happens meanwhile changes the random numbers of the training that follows."""
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(state)


def first_of(items: Any) -> Any:
    """The first row of a table, or the first item of a list."""
    return items.iloc[0] if isinstance(items, pd.DataFrame) else items[0]


def _config(learn: Any, evaluation: Result, vocab: list[str]) -> dict[str, Any]:
    origin = origin_of(learn)
    recipe, items = origin.recipe, learn.dls.train_ds.items
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": evaluation.task,
        "architecture": {
            "library": origin.architecture.library,
            "name": origin.architecture.full_name,
            "head": origin.head,
        },
        "vocab": vocab,
        "vocab_sha256": vocab_hash(vocab),
        "label": getattr(items, "attrs", {}).get("label") or recipe.to_json()["label"],
        "image": image_rules(origin),
        "temperature": 1.0,
        "metrics": evaluation.figures() | evaluation.to_json(),
        "data": _fingerprint(learn.dls),
        "start": {"kind": origin.start.kind, "origin": origin.start.origin, "sha256": origin.start.sha256},
        "recipe": recipe.to_json(),
        "versions": package_versions(),
        "files": {},
    }


def _fingerprint(dls: Any) -> dict[str, Any]:
    """How many images trained and validated, and one hash over the training images' own."""
    digest = hashlib.sha256("".join(_trained_on(dls)).encode()).hexdigest()
    return {"train": len(dls.train_ds), "valid": len(dls.valid_ds), "train_sha256": digest}


def _trained_on(dls: Any) -> list[str]:
    """The SHA-256 of each training image, sorted: so that nobody measures on them by mistake."""
    items = dls.train_ds.items
    return sorted(items["sha256"]) if isinstance(items, pd.DataFrame) and "sha256" in items else []


def package_versions() -> dict[str, str]:
    """The versions of kit, Python and the packages that decide a result."""
    found = {"python": platform.python_version(), "kit": kit.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write_mistakes(evaluation: Result, config: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A few bad predictions as photos; returns what each is, and what the bundle takes it for, for config.json."""
    rows = evaluation.mistakes(MOST_PHOTOS)
    names = _write_photos(rows, folder / MISTAKES)
    said = [{"file": name, "label": row.label, "prediction": row.prediction}
            for name, row in zip(names, rows.itertuples(), strict=True)]  # fmt: skip
    if "probability" not in rows:
        return said
    sure = calibrated(replace(evaluation, predictions=rows).outputs, config["temperature"]).max(1)
    return [one | {"probability": round(float(share), 6)} for one, share in zip(said, sure, strict=True)]


def _write_photos(rows: pd.DataFrame, folder: Path) -> list[str]:
    """The images of `rows` as small JPEGs in the new folder `folder`; returns their paths from the bundle.

    A new image is made from the pixels alone, so that nothing else can come along: no EXIF, no GPS, no file name.
    """
    names = [f"{folder.name}/{folder.name.removesuffix('s')}_{number}.jpg" for number in range(1, len(rows) + 1)]
    for name, path in zip(names, rows["path"], strict=True):
        folder.mkdir(exist_ok=True)
        image = open_image(path, at_least=PHOTO_SIZE)
        image.thumbnail((PHOTO_SIZE, PHOTO_SIZE))
        Image.fromarray(np.asarray(image)).save(folder.parent / name, quality=88)
    return names


def _prove(folder: Path, evaluation: Result) -> dict[str, Any]:
    """Load what was written and predict held-out images anew; the largest difference is the proof."""
    rows = evenly(evaluation.n, PROOF_IMAGES)
    predictor = load(folder, engine="torch")
    ours = outputs(predictor, evaluation.predictions["path"].iloc[rows].tolist())
    difference = largest_difference(predictor.config, ours, evaluation.outputs[rows])
    if not difference <= TOLERANCE:
        problem = f"the bundle does not predict what the learner did: an answer differs by {difference:.2g}"
        fix = "prepare images as the recipe says; with item_tfms or batch_tfms of your own, export through fastai"
        raise BundleError(problem, fix=fix)
    return {"images": len(rows), "largest_difference": difference}


def _add_onnx(folder: Path, evaluation: Result) -> None:
    """model.onnx, proven on the same images; a network that has no such form keeps its bundle, which torch predicts."""
    rows = evenly(evaluation.n, PROOF_IMAGES)
    try:
        export(folder, evaluation.predictions["path"].iloc[rows].tolist(), evaluation.outputs[rows])
    except BundleError as error:
        say(f"note: the bundle goes without {ONNX}: {error.problem}")
