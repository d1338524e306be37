"""Weights by their ID on the Hugging Face hub: from KIT_WEIGHTS, from the hub's cache on this machine, or from the hub.

read("hub:timm/resnet18.a1_in1k").weights        # the path of model.safetensors

Only safetensors are read, never a pickle. What a repository is, its config.json says: timm's, or that of a kit bundle.
"""

import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kit.errors import FetchError, WeightsError
from kit.manifest import CONFIG, FORMAT, MOST_CONFIG_BYTES, WEIGHTS
from kit.model.places import own_file, put_it
from kit.offline import look, offline

PREFIXES = ("hub:", "hf-hub:")
PICKLE = "pytorch_model.bin"
COMMIT = re.compile(r"[0-9a-f]{40}")
HARMLESS = {"img_size", "num_classes", "global_pool", "drop_rate", "drop_path_rate"}
CONVERT = (
    "turn it into safetensors where you trust it (torch.load(..., weights_only=True), safetensors.torch.save_file)"
)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub: its ID, OWNER/NAME, and the branch, tag or commit that is wanted of it."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def short_name(self) -> str:
        """The name without its owner, as timm writes it: resnet18.a1_in1k."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Found:
    """What was found of a repository: model.safetensors, the folder of its config.json, and what that says (or {})."""

    repository: Repository
    weights: Path
    folder: Path
    config: dict[str, Any]

    @property
    def is_bundle(self) -> bool:
        """Whether it is a bundle of kit's."""
        return self.config.get("format") == FORMAT


@dataclass(frozen=True)
class Facts:
    """What timm's config.json says of weights: the network, its normalisation, and the pixels a side of training."""

    architecture: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int


def parse(text: str) -> Repository:
    """hub:ID or hub:ID@REVISION as a `Repository`; `WeightsError` for what cannot be an ID."""
    name, _, revision = text.partition(":")[2].partition("@")
    fits = re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", name) and re.fullmatch(r"[\w./-]*", revision)
    if not fits or ".." in name + revision:
        raise WeightsError(f"{text!r} names nothing on the hub", fix="write hub:OWNER/NAME, or hub:OWNER/NAME@REVISION")
    return Repository(name, revision or None)


def read(text: str) -> Found:
    """model.safetensors and config.json of hub:ID, both of one commit.

    Raises `FetchError` where they cannot be had, and `WeightsError` for a repository that has no safetensors.
    """
    repository = parse(text)
    alone = own_file(f"{repository.short_name}.safetensors")
    if alone and not repository.revision and not own_copy(repository, CONFIG):
        return Found(repository, alone, alone.parent, {})
    config = find(repository, CONFIG)
    commit = config.parent.name
    pinned = replace(repository, revision=commit) if COMMIT.fullmatch(commit) else repository
    beside = config.parent / WEIGHTS
    weights = beside if beside.is_file() else find(pinned, WEIGHTS)
    return Found(pinned, weights, config.parent, read_json(config))


def own_copy(repository: Repository, name: str) -> Path | None:
    """A file of the repository in the folder that KIT_WEIGHTS names: below ID/, or below NAME/."""
    folders = (str(repository),) if repository.revision else (repository.name, repository.short_name)
    return next((path for folder in folders if (path := own_file(f"{folder}/{name}"))), None)


def find(repository: Repository, name: str) -> Path:
    """A file of a repository: from KIT_WEIGHTS, else from the cache, else fetched, if the hub answers at all."""
    return find_here(repository, name) or _fetch(repository, name)


def find_here(repository: Repository, name: str) -> Path | None:
    """A file of a repository on this machine: from KIT_WEIGHTS, else from the cache; None where neither has it."""
    from huggingface_hub import try_to_load_from_cache

    if path := own_copy(repository, name):
        return path
    cached = try_to_load_from_cache(repository.name, name, revision=repository.revision)
    return Path(cached) if isinstance(cached, str) else None


def _fetch(repository: Repository, name: str) -> Path:
    from huggingface_hub import constants, errors, hf_hub_download

    address = f"{constants.ENDPOINT}/{repository.name}"
    fix = f'get "{name}" by hand ({address}) and {put_it(f"{repository}/{name}")}, or say --weights PATH'
    if switch := offline():
        raise FetchError(f"{name} of {repository} is not on this machine, and {switch} forbids to fetch it", fix=fix)
    host = urlsplit(constants.ENDPOINT)
    try:
        look(constants.ENDPOINT)  # the hub's client would try for most of a minute
        return Path(hf_hub_download(repository.name, name, revision=repository.revision))
    except errors.GatedRepoError as error:
        raise FetchError(
            f"{repository} asks who takes it", fix=f"accept its terms at {address}, hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        problem = f"{host.hostname} knows no {repository.name}, or it is private"
        raise FetchError(problem, fix="correct the ID; for what is private: hf auth login") from error
    except errors.RevisionNotFoundError as error:
        raise FetchError(f"{repository.name} has no revision {repository.revision}", fix=f"see {address}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise _lacks(repository, name, address) from error
    except Exception as error:  # whatever the client of the installed version raises
        problem = f"{name} of {repository} is not on this machine, and {host.hostname} did not give it"
        raise FetchError(f"{problem} ({type(error).__name__})", fix=fix) from error


def _lacks(repository: Repository, name: str, address: str) -> WeightsError:
    """The error for a repository without a file; one that has only a pickle is told so, and what to do."""
    if name != CONFIG and _has(repository, PICKLE):
        problem = f"{repository} has no {name}, only {PICKLE}, a pickle, which could run any program: kit fetches none"
        return WeightsError(problem, fix=f"{CONVERT}, then --weights PATH; or ask its author for safetensors")
    return WeightsError(f"{repository} has no {name}", fix=f"see {address}: kit reads {CONFIG} and {WEIGHTS}")


def _has(repository: Repository, name: str) -> bool:
    from huggingface_hub import HfApi, constants

    with suppress(Exception):  # it only makes a message more precise
        return HfApi(endpoint=constants.ENDPOINT).file_exists(repository.name, name, revision=repository.revision)
    return False


def read_json(path: Path) -> dict[str, Any]:
    """config.json of a repository, as it is; `WeightsError` where it is none."""
    try:
        config = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_CONFIG_BYTES else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a JSON object of reasonable size", fix="get it again")
    return config


def facts(found: Found) -> Facts:
    """What a repository's config.json says in timm's layout; of a file without one, what timm knows by its name.

    Raises `WeightsError` that names the field that is missing or not as it should be.
    """
    if not found.config:
        return _known(found)
    name, inner = found.config.get("architecture"), found.config.get("pretrained_cfg", found.config)
    if not isinstance(name, str):
        others = found.config.get("architectures") or found.config.get("model_type") or "nothing"
        problem = f"{found.repository}: config.json names no architecture of timm (it is for {others})"
        raise WeightsError(problem, fix="take a repository of timm's, such as those of https://huggingface.co/timm")
    if unknown := sorted(set(found.config.get("model_args") or {}) - HARMLESS):
        problem = f"{found.repository}: its network was changed (model_args: {', '.join(unknown)})"
        raise WeightsError(problem, fix="kit builds the plain network of that name: take other weights")
    channels, *sides = _numbers(found, inner, "input_size", lowest=1)
    if channels != 3:
        raise WeightsError(f"{found.repository} takes images of {channels} channels, not 3", fix="take other weights")
    mean, std = _numbers(found, inner, "mean", lowest=-math.inf), _numbers(found, inner, "std", lowest=1e-6)
    return Facts(name.partition(".")[0], mean, std, int(sides[-1]))


def _known(found: Found) -> Facts:
    from timm.models import get_pretrained_cfg, is_model

    name = found.repository.short_name
    if not is_model(name.partition(".")[0]):
        problem = f"{found.weights} lies without a config.json, and timm knows no {name}"
        raise WeightsError(problem, fix=f"put its config.json and {WEIGHTS} into a folder {found.repository.name}/")
    config = get_pretrained_cfg(name) or get_pretrained_cfg(name.partition(".")[0])
    return Facts(name.partition(".")[0], tuple(config.mean), tuple(config.std), config.input_size[-1])


def _numbers(found: Found, values: Any, name: str, lowest: float) -> tuple:
    numbers = values.get(name) if isinstance(values, dict) else None
    right = isinstance(numbers, list) and len(numbers) == 3
    if not right or not all(isinstance(n, int | float) and math.isfinite(n) and n >= lowest for n in numbers):
        problem = f"{found.repository}: field pretrained_cfg.{name} of config.json is not three numbers"
        raise WeightsError(problem, fix="get it again, or take other weights")
    return tuple(numbers)


def expected_sha256(path: Path) -> str | None:
    """The SHA-256 that a file of the cache must have: the hub's client names what it fetched by it. None elsewhere."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None
