"""What weights lie on this machine: kit's own, those in KIT_WEIGHTS, in caches and in packages; what each file is.

for one in inventory(): print(one.path, one.what, one.check)      # kit weights prints it
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kit.errors import KitError, WeightsError
from kit.features.store import FOLDER as FEATURES
from kit.files import cache_folder, packaged, sha256
from kit.manifest import CONFIG, UNKNOWN, WEIGHTS, read_form
from kit.model import hub
from kit.model.architectures import TORCHVISION
from kit.model.packaged import PACKAGES, installed, place_of
from kit.model.places import VARIABLE, hub_cache, listed_sha256, own_folder, torch_cache
from kit.weightfile import UNREAD, check_pickle, check_suffix, read_header

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", *UNREAD)
HUB, KIT = "Hugging Face cache", "kit cache"
FITS, UNCHECKED, DAMAGED = "hash fits", "no hash to compare", "damaged: its hash differs; remove it"


@dataclass(frozen=True)
class Weights:
    """A file of weights: the place and path where it lies, its bytes, what it is, and the options that start from it.

    check: "hash fits", "no hash to compare", or why kit would refuse it; then `use` is None.
    """

    place: str
    path: Path
    bytes: int
    what: str
    check: str
    use: str | None

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class Identity:
    """What a file is, the options that start from it, and what its SHA-256 must begin with, where anything says so."""

    what: str
    use: str
    sha256: str | None = None


def places() -> dict[str, Path | None]:
    """The folders where weights may lie, in the order in which kit looks; None for KIT_WEIGHTS where it is not set."""
    return {
        "bundled": packaged("weights"),
        VARIABLE: own_folder(),
        "torch cache": torch_cache(),
        HUB: hub_cache(),
        **installed(),
        KIT: cache_folder(),
    }


def inventory() -> Iterator[Weights]:
    """Every file of weights in those places; its bytes are hashed where there is something to compare with."""
    for place, folder in places().items():
        for path in _files(place, folder) if folder and folder.is_dir() else ():
            yield describe(place, folder, path)


def _files(place: str, folder: Path) -> list[Path]:
    """The weights below a folder; of the hub's cache, those of models. What a bundle holds besides is not a start, nor
    are features that kit keeps."""
    found = folder.glob("models--*/snapshots/*/**/*") if place == HUB else folder.rglob("*")
    found = (path for path in found if not (place == KIT and folder / FEATURES in path.parents))
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file() and path.name != UNKNOWN)


def describe(place: str, folder: Path, path: Path) -> Weights:
    """What one file is. One that kit would refuse says why; no pickle is read."""
    size = path.stat().st_size
    try:
        check_suffix(path)
        facts = read_header(path).facts if path.suffix == ".safetensors" else check_pickle(path) or {}
        found = identify(place, folder, path, facts)
    except KitError as error:
        return Weights(place, path, size, "-", error.problem.removeprefix(str(path)).lstrip(": "), None)
    if found.sha256 and sha256(path)[: len(found.sha256)] != found.sha256:
        return Weights(place, path, size, found.what, DAMAGED, None)
    return Weights(place, path, size, found.what, FITS if found.sha256 else UNCHECKED, found.use)


def identify(place: str, folder: Path, path: Path, facts: dict[str, str]) -> Identity:
    """What a file is: by what lies beside it, by its own metadata, or by its name. Raises `KitError`.

    facts: its metadata.
    """
    if place == "bundled":
        what = f"{facts.get('architecture')}, learned on {facts.get('trained_on')}"
        return Identity(what, f"--arch {facts.get('architecture')} --weights bundled", listed_sha256(path))
    if package := next((package for package in PACKAGES if place == place_of(package)), None):
        use = f"--arch {package.arch} --weights imagenet"
        return Identity(f"{package.arch} of timm, ImageNet", use, package.sha256)
    if path.name == WEIGHTS and (place == HUB or (path.parent / CONFIG).is_file()):
        return _with_config(place, folder, path)
    if place == HUB:
        raise WeightsError(
            f"{path} is not {WEIGHTS}, which alone kit reads from there", fix="give it as --weights PATH"
        )
    name = str(path.relative_to(folder)) if place == VARIABLE else str(path)
    if named := re.fullmatch(r"(.+)-([0-9a-f]{8,64})", path.name.partition(".")[0]):
        return _with_digest(path, named[1], named[2], name)
    if place == VARIABLE and path.suffix == ".safetensors" and "." in path.stem:
        return Identity(f"{path.stem} of timm, by its name", f"--arch {path.stem}")
    expected = hub.expected_sha256(path) or listed_sha256(path)
    return Identity(facts.get("architecture", "not said"), f"--weights {name}", expected)


def _with_config(place: str, folder: Path, path: Path) -> Identity:
    """A bundle's weights, or those of a repository of the hub: config.json beside them says what they are."""
    name, beside = _repository(place, folder, path), path.parent / CONFIG
    repository = hub.parse(f"hub:{name}") if place == HUB else hub.Repository(name)
    found = hub.Found(repository, path, path.parent, hub.read_json(beside) if beside.is_file() else {})
    if found.is_bundle:
        config = read_form(path.parent)
        arch, classes = config["architecture"]["name"], len(config["vocab"])
        use = f"--arch {arch} --weights {f'hub:{name}' if place == HUB else name}"
        return Identity(f"{arch}, a bundle of {classes} classes", use, config["files"][WEIGHTS])
    facts = hub.facts(found)
    what = f"{facts.architecture}, {name}, {facts.size} pixels a side"
    if not found.config:
        return Identity(what, f"--arch {repository.short_name}", hub.expected_sha256(path))
    by_id = place == HUB or (place == VARIABLE and name.count("/") <= 1)
    use = f"--arch {facts.architecture} --weights {f'hub:{name}' if by_id else path}"
    return Identity(what, use, hub.expected_sha256(path))


def _repository(place: str, folder: Path, path: Path) -> str:
    """The ID by which a folder with config.json is found: the hub's, or the path below KIT_WEIGHTS; else its path."""
    if place == HUB:
        model, _, commit = path.relative_to(folder).parts[:3]
        newest = folder / model / "refs" / "main"
        current = newest.is_file() and newest.read_text().strip() == commit
        return model.removeprefix("models--").replace("--", "/") + ("" if current else f"@{commit}")
    return str(path.parent.relative_to(folder) if place == VARIABLE else path.parent)


def _with_digest(path: Path, base: str, digest: str, name: str) -> Identity:
    """A file of torchvision's or an old one of timm's: NAME-DIGEST.pth."""
    if base not in TORCHVISION:
        return Identity(f"{base}, by its name", f"--weights {name}", digest)
    from torchvision.models import get_model_weights

    default = get_model_weights(base).DEFAULT.url.endswith(f"/{path.name}")
    use = f"--arch {base} --weights {'imagenet' if default else name}"
    return Identity(f"{base} of torchvision, ImageNet", use, digest)
