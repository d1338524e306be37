"""The manifest of a bundle, config.json, and the refusal of anything that is not as it says.

config = read_config(find_bundle("runs/pets"))

A bundle is data: JSON, safetensors, text and pictures; config.json names each file by its SHA-256, and nothing in it
is ever run. This is foundation, because both the rooms that write and read bundles and the one that takes weights from
them need it.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.errors import BundleError
from kit.files import sha256
from kit.recipe import RESIZES

FORMAT, VERSION = "kit-bundle", 1
CONFIG, WEIGHTS, ONNX, CARD = "config.json", "model.safetensors", "model.onnx", "README.md"
EXAMPLES, TRAINED_ON, UNKNOWN = "examples", "trained_on.txt", "unknown.safetensors"
FROM_TABLE = "table"
MOST_CONFIG_BYTES = 20_000_000
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
IMAGE_FIELDS: dict[str, type] = {"size": int, "resize": str, "at_least": int, "mean": list, "std": list}


def vocab_hash(vocab: Sequence[str]) -> str:
    """The SHA-256 of the classes in their order: weights and vocabulary carry it, so that they cannot be mixed up."""
    return hashlib.sha256(json.dumps(list(vocab), ensure_ascii=False).encode()).hexdigest()


def find_bundle(path: str | Path) -> Path:
    """The bundle that `path` means: a bundle's folder, or a run folder that holds one."""
    folder = Path(path).expanduser()
    for candidate in (folder, folder / "bundle"):
        if (candidate / CONFIG).is_file():
            return candidate
    what = "holds no config.json" if folder.is_dir() else "is not a folder"
    raise BundleError(f"{path} is no bundle: it {what}", fix="give the folder that kit fine-tune wrote, or its bundle/")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a bundle, after its form and the hash of every file it names were checked.

    Raises `BundleError` that names the field or the file that is not as it should be.
    """
    path = folder / CONFIG
    if path.stat().st_size > MOST_CONFIG_BYTES:
        raise BundleError(f"{path} has {path.stat().st_size:,} bytes; at most {MOST_CONFIG_BYTES:,}", fix=GET_ANOTHER)
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error})", fix=GET_ANOTHER) from error
    _check_form(config, path)
    for name, digest in config["files"].items():
        _check_file(folder, name, digest)
    return config


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
    if config["image"]["resize"] not in RESIZES:
        raise BundleError(f"{path}: field image.resize is none of {', '.join(RESIZES)}", fix=GET_ANOTHER)
    vocab = config["vocab"]
    if len(vocab) < 2 or len(set(map(str, vocab))) != len(vocab) or vocab_hash(vocab) != config["vocab_sha256"]:
        raise BundleError(f"{path}: field vocab does not fit its hash", fix=GET_ANOTHER)
    if WEIGHTS not in config["files"]:
        raise BundleError(f"{path}: field files names no {WEIGHTS}", fix=GET_ANOTHER)


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(
            f"{folder / CONFIG}: field files names {name!r}, which leads out of the bundle", fix=GET_ANOTHER
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing", fix=GET_ANOTHER)
    if sha256(path) != digest:
        raise BundleError(f"{path} is not the file that was saved (another SHA-256)", fix=GET_ANOTHER)
