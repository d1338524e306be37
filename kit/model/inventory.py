"""A list of the weights on this machine: kit's own, those in KIT_WEIGHTS, in caches and in packages.

for one in inventory(): print(one.path, one.what, one.check)      # kit weights prints it
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.errors import KitError, WeightsError
from kit.files import packaged, sha256
from kit.manifest import CONFIG, FORMAT, UNKNOWN, WEIGHTS, read_form
from kit.model import hub
from kit.model.architectures import TORCHVISION
from kit.model.weight_paths import PACKAGES, VARIABLE, listed_sha256, torch_cache, weights_folder
from kit.model.weightfile import UNREAD, check_weightfile

USE = re.compile(r"--arch (\S+)(?: --weights (.+))?")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", *UNREAD)
BUNDLED, HUB = "bundled", "Hugging Face cache"
FITS, UNCHECKED, DAMAGED = "hash fits", "no hash to compare", "damaged: its hash differs; remove it"


@dataclass(frozen=True)
class Weights:
    """A weights file: where it is, its size in bytes, a description, and the options that start training from it.

    check: "hash fits", "no hash to compare", or why kit refuses the file; `use` is None then.
    """

    place: str
    path: Path
    bytes: int
    what: str
    check: str
    use: str | None

    @property
    def is_bundle(self) -> bool:
        """Whether it is the weights file of a bundle."""
        beside = self.path.with_name(CONFIG)
        return self.path.name == WEIGHTS and beside.is_file() and hub.read_json(beside).get("format") == FORMAT


def places() -> dict[str, Path | None]:
    """The folders that kit searches, in this order; None for KIT_WEIGHTS where it is not set."""
    from huggingface_hub import constants

    return {
        BUNDLED: packaged("weights"),
        VARIABLE: weights_folder(),
        "torch cache": torch_cache(),
        HUB: Path(constants.HF_HUB_CACHE),
        **{f"package {package.name}": package.folder for package in PACKAGES if package.folder},
    }


def inventory() -> Iterator[Weights]:
    """Every weights file in these folders; it is hashed where there is a hash to compare with."""
    for place, folder in places().items():
        # In the hub's cache only models count. A bundle's out-of-distribution detector is not a weights file.
        found = folder.glob("models--*/snapshots/*/**/*" if place == HUB else "**/*") if folder else ()
        for path in sorted(found):
            if path.suffix.lower() in SUFFIXES and path.is_file() and path.name != UNKNOWN:
                yield describe(place, folder, path)


def networks_here() -> list[tuple[str, str]]:
    """The fields arch and weights of a recipe for each of these files that names its network, except those of bundles,
    which may have been trained on any images."""
    named = (USE.fullmatch(one.use) for one in inventory() if one.use and not one.is_bundle)
    return list(dict.fromkeys((found[1], found[2] or "imagenet") for found in named if found))


def describe(place: str, folder: Path, path: Path) -> Weights:
    """The description of one file, or the reason why kit refuses it. No pickle is loaded."""
    size = path.stat().st_size
    try:
        what, use, expected = _identify(place, folder, path, check_weightfile(path))
    except KitError as error:
        return Weights(place, path, size, "-", error.problem.removeprefix(str(path)).lstrip(": "), None)
    if expected and not sha256(path).startswith(expected):
        return Weights(place, path, size, what, DAMAGED, None)
    return Weights(place, path, size, what, FITS if expected else UNCHECKED, use)


def _identify(place: str, folder: Path, path: Path, metadata: dict[str, str]) -> tuple[str, str, str | None]:
    """A file's description, the options that start from it, and the first digits of its SHA-256 where they are known.

    They come from the files beside it, from its metadata, or from its name. Raises `KitError`.
    """
    if place == BUNDLED:
        arch = metadata.get("architecture")
        what = f"{arch}, trained on {metadata.get('trained_on')}"
        return what, f"--arch {arch} --weights bundled", listed_sha256(path)
    if package := next((package for package in PACKAGES if path == package.path), None):
        return f"{package.arch} of timm, ImageNet", f"--arch {package.arch} --weights imagenet", package.sha256
    if path.name == WEIGHTS and (place == HUB or path.with_name(CONFIG).is_file()):
        return _with_config(place, folder, path)
    if place == HUB:
        problem = f"{path} is not {WEIGHTS}, which alone kit reads from there"
        raise WeightsError(problem, fix="give it as --weights PATH")
    name = path.relative_to(folder) if place == VARIABLE else path
    if named := re.fullmatch(r"(.+)-([0-9a-f]{8,64})", path.name.partition(".")[0]):
        return _with_digest(path, named[1], named[2], f"--weights {name}")
    if place == VARIABLE and path.suffix == ".safetensors" and "." in path.stem:
        return f"{path.stem} of timm, by its name", f"--arch {path.stem}", None
    expected = hub.expected_sha256(path) or listed_sha256(path)
    return metadata.get("architecture", "not said"), f"--weights {name}", expected


def _with_config(place: str, folder: Path, path: Path) -> tuple[str, str, str | None]:
    """Weights of a bundle or of a hub repository, described by the config.json beside them."""
    name, beside = _repository(place, folder, path), path.with_name(CONFIG)
    repository = hub.parse(f"hub:{name}") if place == HUB else hub.Repository(name)
    found = hub.Found(repository, path, path.parent, hub.read_json(beside) if beside.is_file() else {})
    if found.is_bundle:
        config = read_form(path.parent)
        arch, classes = config["architecture"]["name"], len(config["vocab"])
        use = f"--arch {arch} --weights {f'hub:{name}' if place == HUB else name}"
        return f"{arch}, a bundle of {classes} classes", use, config["files"][WEIGHTS]
    config = hub.timm_config(found)
    what = f"{config.architecture}, {name}, {config.size} pixels a side"
    if not found.config:
        return what, f"--arch {repository.short_name}", hub.expected_sha256(path)
    by_id = place == HUB or (place == VARIABLE and name.count("/") <= 1)
    use = f"--arch {config.architecture} --weights {f'hub:{name}' if by_id else path}"
    return what, use, hub.expected_sha256(path)


def _repository(place: str, folder: Path, path: Path) -> str:
    """The hub ID of a folder in the hub's cache; else its path, relative to KIT_WEIGHTS where it is in there."""
    if place == HUB:
        model, _, commit = path.relative_to(folder).parts[:3]
        newest = folder / model / "refs" / "main"
        current = newest.is_file() and newest.read_text().strip() == commit
        return model.removeprefix("models--").replace("--", "/") + ("" if current else f"@{commit}")
    return str(path.parent.relative_to(folder) if place == VARIABLE else path.parent)


def _with_digest(path: Path, base: str, digest: str, by_path: str) -> tuple[str, str, str | None]:
    """A file NAME-DIGEST.pth, as torchvision names them, and timm did formerly."""
    if base not in TORCHVISION:
        return f"{base}, by its name", by_path, digest
    from torchvision.models import get_model_weights

    default = get_model_weights(base).DEFAULT.url.endswith(f"/{path.name}")
    use = f"--arch {base} --weights imagenet" if default else f"--arch {base} {by_path}"
    return f"{base} of torchvision, ImageNet", use, digest
