"""From a Learner and its Evaluation to a bundle: weights, config, model card, examples; proven before it is done.

folder = save(learn, evaluate(learn), "pets-bundle")
"""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from kit.bundle.card import card_text
from kit.bundle.format import CARD, CONFIG, EXAMPLES, FORMAT, VERSION, WEIGHTS, vocab_hash
from kit.bundle.read import load
from kit.data.images import open_image
from kit.errors import BundleError
from kit.evaluate.evaluation import Evaluation
from kit.files import atomic_path, new_folder, sha256, write_json, write_text

PACKAGES = ("fastai", "torch", "torchvision", "timm", "pillow", "numpy", "safetensors")
PROOF_IMAGES = 16
TOLERANCE = 1e-4
EXAMPLE_SIZE = 480
MOST_EXAMPLES = 6


def save(learn: Any, evaluation: Evaluation, folder: str | Path, *, examples: bool = True) -> Path:
    """Write a bundle into the new folder `folder`, and return it.

    learn: a Learner of `model.learner`; evaluation: its own, on validation images. examples: whether a few validation
    images go along, small and without metadata. Before it returns, the bundle is loaded and must predict what the
    evaluation says, to 1e-4; config.json records that proof. Raises `BundleError` where it does not, or `OutputError`.
    """
    folder = new_folder(Path(folder))
    vocab = [str(name) for name in learn.dls.vocab]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learn.model.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as partial:
        save_file(tensors, partial, metadata={"vocab_sha256": vocab_hash(vocab)})
    config = _config(learn, evaluation, vocab)
    if examples:
        _write_examples(evaluation, folder / EXAMPLES)
    write_text(folder / CARD, card_text(config, evaluation))
    config["files"] = {
        path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    write_json(folder / CONFIG, config)
    write_json(folder / CONFIG, config | {"proof": _prove(folder, evaluation)})
    return folder


def _config(learn: Any, evaluation: Evaluation, vocab: list[str]) -> dict[str, Any]:
    origin, recipe = learn.origin, learn.origin.recipe
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": "classification",
        "architecture": {
            "library": origin.architecture.library,
            "name": origin.architecture.full_name,
            "head": "fastai",
        },
        "vocab": vocab,
        "vocab_sha256": vocab_hash(vocab),
        "label": recipe.to_json()["label"],
        "image": {
            "size": recipe.size,
            "resize": recipe.resize,
            "at_least": max(recipe.size, recipe.presize or 0),
            "mean": list(origin.start.mean),
            "std": list(origin.start.std),
        },
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
    items = dls.train_ds.items
    facts = {"train": len(dls.train_ds), "valid": len(dls.valid_ds)}
    if isinstance(items, pd.DataFrame) and "sha256" in items:
        facts["train_sha256"] = hashlib.sha256("".join(sorted(items["sha256"])).encode()).hexdigest()
    return facts


def package_versions() -> dict[str, str]:
    """The versions of kit, Python and the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("kit", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write_examples(evaluation: Evaluation, folder: Path) -> None:
    """A right prediction of each class in turn, as small JPEGs of pixels alone: no EXIF, no GPS, no file name."""
    right = evaluation.predictions[evaluation.predictions["correct"]]
    right = right.assign(turn=right.groupby("label").cumcount()).sort_values(["turn", "label"]).head(MOST_EXAMPLES)
    folder.mkdir()
    for number, path in enumerate(right["path"], 1):
        image = open_image(path, at_least=EXAMPLE_SIZE)
        image.thumbnail((EXAMPLE_SIZE, EXAMPLE_SIZE))
        image.info.clear()
        image.save(folder / f"example_{number}.jpg", quality=88)


def _prove(folder: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Load what was written and predict held-out images anew; the largest difference of a probability is the proof."""
    rows = np.unique(np.linspace(0, evaluation.n - 1, min(PROOF_IMAGES, evaluation.n)).round().astype(int))
    predictions = load(folder).predict([evaluation.predictions["path"].iloc[row] for row in rows])
    ours = np.array([[one.probabilities.get(name, np.nan) for name in evaluation.vocab] for one in predictions])
    difference = float(np.abs(ours - evaluation.probabilities[rows]).max())
    if not difference <= TOLERANCE:
        problem = f"the bundle does not predict what the learner did: a probability differs by {difference:.2g}"
        fix = "prepare images as the recipe says; with item_tfms or batch_tfms of your own, export through fastai"
        raise BundleError(problem, fix=fix)
    return {"images": len(rows), "largest_difference": difference}
