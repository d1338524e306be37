"""The manifest of a bundle, config.json: writing it, reading it, and checking that the bundle is as it says.

config = read_config(find_bundle("runs/pets"))

A bundle is data: JSON, safetensors, text and pictures; nothing in it is ever run. config.json holds the SHA-256 of each
file; its own is in config.json.sha256.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.errors import BundleError
from kit.files import sha256, write_json, write_text
from kit.recipe import MAX_SIZE, RESIZES
from kit.tasks import of
from kit.tasks.base import is_number
from kit.tasks.text import TASKS

FORMAT, VERSION = "kit-bundle", 1
CONFIG, WEIGHTS, ONNX, CARD = "config.json", "model.safetensors", "model.onnx", "README.md"
SEAL = "config.json.sha256"
EXAMPLES, MISTAKES, TRAINED_ON, UNKNOWN = "examples", "mistakes", "trained_on.txt", "unknown.safetensors"
FROM_TABLE, CONVERTED = "table", "converted"
MOST_CONFIG_BYTES = 20_000_000
HEADS = ("linear", "fastai")
FITS = (*RESIZES, "pad-reflection", "pad-border")  # the latter two are of converted learners
LEAST_SIZE = 8
MOST_WEIGHTS = 100_000_000
GET_ANOTHER = "get the bundle again from where it was made"
FIELDS: dict[str, type] = {
    "format": str,
    "version": int,
    "task": str,
    "architecture": dict,
    "vocab": list,
    "vocab_sha256": str,
    "label": str,
    "image": dict,
    "temperature": float,
    "metrics": dict,
    "data": dict,
    "start": dict,
    "recipe": dict,
    "versions": dict,
    "files": dict,
}
MISTAKE_FIELDS: dict[str, type] = {"file": str, "label": str, "prediction": str}
IMAGE_FIELDS: dict[str, type] = {"size": int, "resize": str, "at_least": int, "mean": list, "std": list}


def vocab_hash(vocab: Sequence[str]) -> str:
    """The SHA-256 of the vocabulary: the weights hold it too, so that the two cannot be mixed up."""
    return hashlib.sha256(json.dumps(list(vocab), ensure_ascii=False).encode()).hexdigest()


def find_bundle(path: str | Path) -> Path:
    """The folder of the bundle at `path`: a bundle, or a run folder that holds one. Raises `BundleError`."""
    folder = Path(path).expanduser()
    for candidate in (folder, folder / "bundle"):
        if (candidate / CONFIG).is_file():
            return candidate
    what = "holds no config.json" if folder.is_dir() else "is not a folder"
    raise BundleError(f"{path} is no bundle: it {what}", fix="give the folder that kit fine-tune wrote, or its bundle/")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a bundle; its fields and the hash of every file it names are checked.

    Raises `BundleError` that names the field or the file that is not valid.
    """
    config = read_form(folder)
    for name in config["files"]:
        check_file(folder, config, name)
    return config


def read_form(folder: Path) -> dict[str, Any]:
    """config.json; only its fields are checked. Call `check_file` for each file before opening it."""
    path = folder / CONFIG
    if path.stat().st_size > MOST_CONFIG_BYTES:
        raise BundleError(f"{path} has {path.stat().st_size:,} bytes; at most {MOST_CONFIG_BYTES:,}", fix=GET_ANOTHER)
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({error})", fix=GET_ANOTHER) from error
    _check_form(config, path)
    _check_seal(folder)
    return config


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.json, and its SHA-256 to config.json.sha256, so that every change of a bundle is noticed."""
    (folder / SEAL).unlink(missing_ok=True)
    write_json(folder / CONFIG, config)
    write_text(folder / SEAL, _seal(folder))


def _seal(folder: Path) -> str:
    """The SHA-256 of config.json in the format of `sha256sum`."""
    return f"{sha256(folder / CONFIG)}  {CONFIG}\n"


def _check_seal(folder: Path) -> None:
    """Raise `BundleError` where config.json has another SHA-256; bundles without config.json.sha256 are not checked."""
    path = folder / SEAL
    if path.is_file() and path.read_bytes() != _seal(folder).encode():
        problem = f"{folder / CONFIG} is not the file that was saved (another SHA-256 than in {SEAL})"
        raise BundleError(problem, fix=f"{GET_ANOTHER}; if you changed it yourself, remove {SEAL}")


def input_size(rules: Mapping[str, Any]) -> int:
    """Pixels a side of what a network gets. rules: `image` of a bundle's config."""
    return rules.get("input", rules["size"])


def photos(config: dict[str, Any], part: str) -> list[str]:
    """The photos in the folder `part` of a bundle (`EXAMPLES`, `MISTAKES`), sorted, as paths relative to the bundle.

    Only those that config.json names: the hashes of others were not checked."""
    return sorted(name for name in config["files"] if name == f"{part}/{Path(name).name}" and name.endswith(".jpg"))


def _check_form(config: Any, path: Path) -> None:
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BundleError(f"{path} does not describe a kit bundle", fix="give the folder that kit fine-tune wrote")
    if config.get("version") != VERSION:
        problem = f"{path}: version {config.get('version')!r}; this kit reads version {VERSION}"
        raise BundleError(problem, fix="use the kit that wrote it, or a newer one")
    for fields, values, where in ((FIELDS, config, ""), (IMAGE_FIELDS, config.get("image"), "image.")):
        for name, kind in fields.items():
            if not isinstance(values, dict) or not isinstance(values.get(name), kind):
                raise BundleError(f"{path}: field {where}{name} is not a {kind.__name__}", fix=GET_ANOTHER)
    if not isinstance(config["architecture"].get("name"), str):
        raise BundleError(f"{path}: field architecture.name is not a str", fix=GET_ANOTHER)
    if not _is_head(config["architecture"].get("head")):
        problem = f"{path}: field architecture.head is none of {', '.join(HEADS)}, and no list of layers"
        raise BundleError(problem, fix=GET_ANOTHER)
    for name in ("size", "input"):
        size = config["image"].get(name, LEAST_SIZE)
        if not _is_count(size) or not LEAST_SIZE <= size <= MAX_SIZE:
            problem = f"{path}: field image.{name} is not a whole number from {LEAST_SIZE} to {MAX_SIZE}"
            raise BundleError(problem, fix=GET_ANOTHER)
    if not is_number(config["image"].get("part", 1)) or not 0 < config["image"].get("part", 1) <= 1:
        raise BundleError(f"{path}: field image.part is not a number above 0 and at most 1", fix=GET_ANOTHER)
    if not is_number(config["temperature"]) or config["temperature"] <= 0:
        raise BundleError(f"{path}: field temperature is not a number above 0", fix=GET_ANOTHER)
    if config["image"]["resize"] not in FITS:
        raise BundleError(f"{path}: field image.resize is none of {', '.join(FITS)}", fix=GET_ANOTHER)
    if config["task"] not in TASKS:
        problem = f"{path}: field task is {config['task']!r}, none of {', '.join(TASKS)}"
        raise BundleError(problem, fix="use the kit that wrote it, or a newer one")
    vocab, fewest = config["vocab"], of(config["task"]).fewest
    if not all(isinstance(name, str) for name in vocab):
        raise BundleError(f"{path}: field vocab is not a list of texts", fix=GET_ANOTHER)
    if len(vocab) < fewest or len(set(vocab)) != len(vocab) or vocab_hash(vocab) != config["vocab_sha256"]:
        raise BundleError(f"{path}: field vocab does not fit its hash", fix=GET_ANOTHER)
    if WEIGHTS not in config["files"]:
        raise BundleError(f"{path}: field files names no {WEIGHTS}", fix=GET_ANOTHER)
    _check_shown(config, path)
    if problem := of(config["task"]).problem(config):
        raise BundleError(f"{path}: {problem}", fix=GET_ANOTHER)


def _check_shown(config: dict[str, Any], path: Path) -> None:
    """The confusion matrix and the mistakes that the page shows; both are optional."""
    cells, mistakes = config["metrics"].get("confusion", []), config.get("mistakes", [])
    if not _all(cells, lambda cell: _all(cell, _is_count) and len(cell) == 3 and max(cell[:2]) < len(config["vocab"])):
        raise BundleError(f"{path}: field metrics.confusion is not a list of [class, class, times]", fix=GET_ANOTHER)
    if not _all(mistakes, _is_mistake):
        raise BundleError(f"{path}: field mistakes is not a list of {', '.join(MISTAKE_FIELDS)}", fix=GET_ANOTHER)


def _is_head(head: Any) -> bool:
    """Whether a head is named, or a list of layers that are not too large: each a name and numbers."""
    if not isinstance(head, list):
        return head in HEADS
    good = all(isinstance(layer, list) and _all(layer[1:], is_number) for layer in head)
    return good and all(math.prod(layer[1:]) <= MOST_WEIGHTS for layer in head)


def _is_mistake(one: Any) -> bool:
    if not isinstance(one, dict) or not _fits(one, MISTAKE_FIELDS):
        return False
    return one.get("probability") is None or is_number(one["probability"])


def _all(values: Any, test: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(map(test, values))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _fits(values: dict[str, Any], fields: dict[str, type]) -> bool:
    return all(isinstance(values.get(name), kind) for name, kind in fields.items())


def check_file(folder: Path, config: dict[str, Any], name: str) -> None:
    """Raise `BundleError` where a file that config.json names is outside the bundle, missing or changed."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(
            f"{folder / CONFIG}: field files names {name!r}, which leads out of the bundle", fix=GET_ANOTHER
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing", fix=GET_ANOTHER)
    if sha256(path) != config["files"][name]:
        raise BundleError(f"{path} is not the file that was saved (another SHA-256)", fix=GET_ANOTHER)
