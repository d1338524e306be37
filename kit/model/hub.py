"""Weights by their ID on the Hugging Face hub: from KIT_WEIGHTS, from the hub's local cache, or downloaded.

read("hub:timm/resnet18.a1_in1k").weights        # the path of model.safetensors

Only safetensors are read, never a pickle. config.json says whether a repository is one of timm's or a kit bundle.
"""

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kit.errors import FetchError, WeightsError
from kit.manifest import CONFIG, FORMAT, MOST_CONFIG_BYTES, WEIGHTS
from kit.model.weight_paths import in_weights_folder, where_to_put
from kit.offline import check_connection, offline

PREFIXES = ("hub:", "hf-hub:")
COMMIT = re.compile(r"[0-9a-f]{40}")
HARMLESS_ARGS = {"img_size", "num_classes", "global_pool", "drop_rate", "drop_path_rate"}


@dataclass(frozen=True)
class Repository:
    """A hub repository: its ID, OWNER/NAME, and a branch, tag or commit (None: the main branch)."""

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
    """Files of a repository: model.safetensors, and config.json's folder and content ({} where there is no config)."""

    repository: Repository
    weights: Path
    folder: Path
    config: dict[str, Any]

    @property
    def is_bundle(self) -> bool:
        """Whether the repository is a kit bundle."""
        return self.config.get("format") == FORMAT


@dataclass(frozen=True)
class TimmConfig:
    """timm's description of weights: network, normalisation, and size of the training images in pixels a side."""

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

    Raises `FetchError` where they are not available, and `WeightsError` for a repository that has no safetensors.
    """
    repository = parse(text)
    single_file = in_weights_folder(f"{repository.short_name}.safetensors")
    if single_file and not repository.revision and not _in_weights_folder(repository, CONFIG):
        return Found(repository, single_file, single_file.parent, {})
    config = get_file(repository, CONFIG)
    commit = config.parent.name
    pinned = replace(repository, revision=commit) if COMMIT.fullmatch(commit) else repository
    beside = config.parent / WEIGHTS
    weights = beside if beside.is_file() else get_file(pinned, WEIGHTS)
    return Found(pinned, weights, config.parent, read_json(config))


def _in_weights_folder(repository: Repository, name: str) -> Path | None:
    """A file of the repository in the folder that KIT_WEIGHTS names: in ID/ or in NAME/."""
    folders = (str(repository),) if repository.revision else (repository.name, repository.short_name)
    return next((path for folder in folders if (path := in_weights_folder(f"{folder}/{name}"))), None)


def get_file(repository: Repository, name: str) -> Path:
    """A file of a repository: from KIT_WEIGHTS, else from the cache, else downloaded."""
    return local_file(repository, name) or _download(repository, name)


def local_file(repository: Repository, name: str) -> Path | None:
    """A file of a repository on this machine: in KIT_WEIGHTS, else in the cache; None where it is in neither."""
    from huggingface_hub import try_to_load_from_cache

    if path := _in_weights_folder(repository, name):
        return path
    cached = try_to_load_from_cache(repository.name, name, revision=repository.revision)
    return Path(cached) if isinstance(cached, str) else None


def _download(repository: Repository, name: str) -> Path:
    from huggingface_hub import constants, errors, hf_hub_download

    address = f"{constants.ENDPOINT}/{repository.name}"
    fix = f'get "{name}" by hand ({address}) and {where_to_put(f"{repository}/{name}")}, or say --weights PATH'
    if switch := offline():
        raise FetchError(f"{name} of {repository} is not on this machine, and {switch} forbids to fetch it", fix=fix)
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        check_connection(constants.ENDPOINT)  # fails at once offline; the hub's client would retry for most of a minute
        return Path(hf_hub_download(repository.name, name, revision=repository.revision))
    except errors.GatedRepoError as error:
        raise FetchError(
            f"{repository} is gated: it asks for your agreement", fix=f"accept its terms at {address}, hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        problem = f"{host} has no repository {repository.name}, or it is private"
        raise FetchError(problem, fix="correct the ID; for what is private: hf auth login") from error
    except errors.RevisionNotFoundError as error:
        raise FetchError(f"{repository.name} has no revision {repository.revision}", fix=f"see {address}") from error
    except errors.RemoteEntryNotFoundError as error:
        pickle = "a pickle (pytorch_model.bin) could run any program and is not fetched"
        fix = f"see {address}; {pickle}: turn one that you trust into safetensors, then --weights PATH"
        raise WeightsError(f"{repository} has no {name}: kit reads {CONFIG} and {WEIGHTS}", fix=fix) from error
    except Exception as error:  # the exceptions differ between versions of the client
        problem = f"{name} of {repository} is not on this machine, and {host} did not give it"
        raise FetchError(f"{problem} ({type(error).__name__})", fix=fix) from error


def read_json(path: Path) -> dict[str, Any]:
    """The content of a repository's config.json; `WeightsError` where it is not a JSON object."""
    try:
        config = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_CONFIG_BYTES else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a JSON object of reasonable size", fix="get it again")
    return config


def timm_config(found: Found) -> TimmConfig:
    """The config.json of a repository in timm's layout; of a file without config, what timm knows by the file's name.

    Raises `WeightsError` that names the missing or invalid field.
    """
    if not found.config:
        return _timm_config_by_name(found)
    name, inner = found.config.get("architecture"), found.config.get("pretrained_cfg", found.config)
    if not isinstance(name, str):
        others = found.config.get("architectures") or found.config.get("model_type") or "nothing"
        problem = f"{found.repository}: config.json names no architecture of timm (it is for {others})"
        raise WeightsError(problem, fix="take a repository of timm's, such as those of https://huggingface.co/timm")
    if unknown := sorted(set(found.config.get("model_args") or {}) - HARMLESS_ARGS):
        problem = f"{found.repository}: its network was changed (model_args: {', '.join(unknown)})"
        raise WeightsError(problem, fix="kit builds the plain network of that name: take other weights")
    fields = {field: inner.get(field) if isinstance(inner, dict) else None for field in ("input_size", "mean", "std")}
    for field, numbers in fields.items():
        good = isinstance(numbers, list) and len(numbers) == 3
        good = good and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        if not good or (field != "mean" and min(numbers) <= 0):
            problem = f"{found.repository}: field pretrained_cfg.{field} of config.json is not three usable numbers"
            raise WeightsError(problem, fix="get it again, or take other weights")
    channels, *_, size = fields["input_size"]
    if channels != 3:
        raise WeightsError(f"{found.repository} takes images of {channels} channels, not 3", fix="take other weights")
    return TimmConfig(name.partition(".")[0], tuple(fields["mean"]), tuple(fields["std"]), int(size))


def _timm_config_by_name(found: Found) -> TimmConfig:
    from timm.models import get_pretrained_cfg, is_model

    name = found.repository.short_name
    if not is_model(name.partition(".")[0]):
        problem = f"{found.weights} has no config.json beside it, and timm has no network {name}"
        raise WeightsError(problem, fix=f"put its config.json and {WEIGHTS} into a folder {found.repository.name}/")
    config = get_pretrained_cfg(name) or get_pretrained_cfg(name.partition(".")[0])
    return TimmConfig(name.partition(".")[0], tuple(config.mean), tuple(config.std), config.input_size[-1])


def expected_sha256(path: Path) -> str | None:
    """The SHA-256 of a file in the hub's cache, which is the name of the blob it links to; None for others."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None
