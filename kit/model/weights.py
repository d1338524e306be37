"""Where pretrained weights come from: a file, a bundle, kit's own, the hub, caches, a package, or the servers.

start = load_weights(network, body, find_architecture("resnet18"), "imagenet")
start.origin                                     # 'imagenet: resnet18-f37072fd.pth'
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kit.console import say
from kit.errors import ArchitectureError, FetchError, KitError, OutputError, WeightsError
from kit.fetch import Digest, Source, download
from kit.files import packaged
from kit.manifest import GET_ANOTHER, WEIGHTS, find_bundle, read_config, read_form
from kit.model import hub
from kit.model.architectures import IMAGENET_MEAN, IMAGENET_STD, Architecture
from kit.model.packaged import Package, package_for, renamed, without_network
from kit.model.places import find_path, listed_sha256, own_file, put_it, torch_cache
from kit.model.tensors import check_finite, check_hash, fill, read_tensors

BUNDLED = {"resnet18": "resnet18-cifar10.safetensors"}
Figures = tuple[float, ...]


@dataclass(frozen=True)
class Start:
    """What a network starts from: where its weights came from, the normalisation they expect, the file's SHA-256.

    `asked` is what the recipe wanted; where it differs from what came (`kind`), `note` says why.
    """

    asked: str
    kind: str
    origin: str
    mean: Figures = IMAGENET_MEAN
    std: Figures = IMAGENET_STD
    sha256: str | None = None
    note: str | None = None

    @property
    def pretrained(self) -> bool:
        """Whether anything was learned before."""
        return self.kind != "none"


def load_weights(network: nn.Module, body: nn.Module, architecture: Architecture, weights: str) -> Start:
    """Fill `network`, and with it the `body` cut from it, with what a recipe's `weights` means; say where it came from.

    weights: "imagenet", "bundled", "none", "hub:ID", the path of a .safetensors or .pth file, or of a bundle's folder.
    The folder that KIT_WEIGHTS names is looked into first, then the caches, then a package that has them, then the
    network, unless kit is offline. Where ImageNet weights cannot be had, resnet18 falls back to bundled, with a line
    that says so; any other network stops with `WeightsError`, which names the file and where to put it.
    """
    if weights == "none":
        return Start("none", "none", "random numbers")
    if weights == "bundled":
        return _bundled(network, architecture)
    if weights == "imagenet":
        return _imagenet_or_bundled(network, architecture)
    if weights.startswith(hub.PREFIXES):
        return _from_hub(network, body, architecture, weights)
    path = find_path(weights)
    if path.is_dir():
        return _from_bundle(body, architecture, path)
    if path.is_file():
        return _from_file(network, architecture, path)
    problem = f"weights {weights!r}: neither a file nor a bundle's folder, nor one of imagenet, bundled, none, hub:ID"
    raise WeightsError(problem, fix="correct the path, or choose --weights imagenet; kit weights lists what is here")


def _bundled(network: nn.Module, architecture: Architecture) -> Start:
    if architecture.full_name not in BUNDLED:
        problem = f"no weights are bundled for {architecture.full_name}; they are for: {', '.join(BUNDLED)}"
        raise WeightsError(problem, fix="--arch resnet18, or another --weights")
    path = packaged("weights") / BUNDLED[architecture.full_name]
    if not path.is_file():
        raise WeightsError(f"the bundled weights {path} are missing", fix="install kit again")
    start = _from_file(network, architecture, path, listed_sha256(path))
    return replace(start, asked="bundled", kind="bundled", origin=f"bundled: {path.name}")


def _imagenet_or_bundled(network: nn.Module, architecture: Architecture) -> Start:
    fetch = _torchvision if architecture.library == "torchvision" else _timm
    try:
        return fetch(network, architecture)
    except (FetchError, OutputError) as error:
        if architecture.full_name not in BUNDLED:
            raise WeightsError(
                f"no ImageNet weights for {architecture.full_name}: {error.problem}", fix=_fix(network, error)
            ) from error
        note = "ImageNet weights could not be had; kit's own, learned on CIFAR-10, were taken: expect a higher error"
        note = f"{note} ({without_network()})"
        say(f"note: {note}\n  Fix: {error.fix}")
        return replace(_bundled(network, architecture), asked="imagenet", note=note)


def _fix(network: nn.Module, error: KitError) -> str:
    package = package_for(getattr(network, "pretrained_cfg", {}))
    install = f"{package.install}, which brings them; or " if package else ""
    return f"{install}{error.fix}; or --weights none, or --arch auto, which needs no network"


def _fetched(url: str, what: str) -> Path:
    """A file whose name holds the start of its SHA-256: from KIT_WEIGHTS, torch's cache, or its server."""
    name = url.rsplit("/", 1)[-1]
    digest = Digest("sha256", name.rsplit("-", 1)[-1].partition(".")[0])
    to = own_file(name) or torch_cache() / name
    return download([Source(url, digest)], to, what, or_else=f", or {put_it(name)}")


def torchvision_file(architecture: Architecture) -> Path:
    """torchvision's default weights of its network; `FetchError` where they cannot be had, as `download` says."""
    from torchvision.models import get_model_weights

    url = get_model_weights(architecture.name).DEFAULT.url
    return _fetched(url, f"the ImageNet weights of {architecture.name}")


def _torchvision(network: nn.Module, architecture: Architecture) -> Start:
    from torchvision.models import get_model_weights

    path = torchvision_file(architecture)
    figures = get_model_weights(architecture.name).DEFAULT.transforms()
    start = _from_file(network, architecture, path)
    mean, std = tuple(figures.mean), tuple(figures.std)
    return replace(start, asked="imagenet", kind="imagenet", origin=f"imagenet: {path.name}", mean=mean, std=std)


def _timm(network: nn.Module, architecture: Architecture) -> Start:
    """timm's weights for the name and its tag: by their ID on the hub, or of a package; some old ones by address."""
    config = network.pretrained_cfg
    name, url = config.get("hf_hub_id"), config.get("url")
    if name:
        repository, file = hub.Repository(name), config.get("hf_hub_filename") or WEIGHTS
        path = own_file(f"{repository.short_name}.safetensors") or hub.find_here(repository, file)
        package = package_for(config)
        if path is None and package and package.path:
            return _from_package(network, architecture, package, package.path)
        path = path or hub.find(repository, file)
    elif isinstance(url, str) and "-" in url.rpartition("/")[2]:
        path = _fetched(url, f"the weights of {architecture.full_name}")
    else:
        problem = f"the pretrained weights of {architecture.full_name} are not published"
        raise FetchError(problem, fix="give a file as --weights PATH")
    start = _from_file(network, architecture, path, hub.expected_sha256(path))
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return replace(start, asked="imagenet", kind="imagenet", origin=f"timm: {name or path.name}", mean=mean, std=std)


def _from_package(network: nn.Module, architecture: Architecture, package: Package, path: Path) -> Start:
    """ImageNet weights that an installed package brings, by timm's names and with timm's normalisation."""
    digest, config = check_hash(path, package.sha256), network.pretrained_cfg
    tensors, _ = read_tensors(path)
    fill(network, architecture, renamed(tensors, network, path), path)
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Start("imagenet", "imagenet", f"package: {path.name} of {package.name}", mean, std, digest)


def _from_hub(network: nn.Module, body: nn.Module, architecture: Architecture, asked: str) -> Start:
    """A repository of the hub: in timm's layout, or a bundle of kit's."""
    found = hub.read(asked)
    origin = f"hub: {found.repository}"
    if found.is_bundle:
        return _body_of(body, architecture, read_form(found.folder), found.weights, asked, origin)
    facts = hub.facts(found)
    if facts.architecture != architecture.name.partition(".")[0]:
        problem = f"{asked} holds {facts.architecture}, not {architecture.full_name}"
        raise ArchitectureError(problem, fix=f"--arch {facts.architecture}")
    start = _from_file(network, architecture, found.weights, hub.expected_sha256(found.weights))
    origin = f"{origin}, learned at {facts.size} pixels a side"
    return replace(start, asked=asked, kind="hub", origin=origin, mean=facts.mean, std=facts.std)


def _from_file(network: nn.Module, architecture: Architecture, path: Path, expected: str | None = None) -> Start:
    """Weights from a .safetensors file, or a .pth file read without running any code in it."""
    tensors, facts = read_tensors(path)
    digest = check_hash(path, expected)
    fill(network, architecture, tensors, path)
    own = getattr(network, "pretrained_cfg", {})
    figures = {
        name: _figures(facts, name, path) or tuple(own.get(name) or default)
        for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    }
    return Start(str(path), "file", str(path), sha256=digest, **figures)


def _figures(facts: dict[str, str], name: str, path: Path) -> Figures | None:
    """The normalisation that a file's own metadata state; `WeightsError` where they are not three numbers."""
    if name not in facts:
        return None
    try:
        first, second, third = map(float, json.loads(facts[name]))
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{path}: its {name} is not three numbers", fix=f'write it as "{name}": "[0.5, 0.5, 0.5]"'
        ) from error
    return first, second, third


def _from_bundle(body: nn.Module, architecture: Architecture, path: Path) -> Start:
    """The body of a bundle of ours, to go on from what it learned; its head stays behind."""
    folder = find_bundle(path)
    return _body_of(body, architecture, read_config(folder), folder / WEIGHTS, str(path), f"bundle: {path}")


def _body_of(
    body: nn.Module, architecture: Architecture, config: dict[str, Any], path: Path, asked: str, origin: str
) -> Start:
    name, image = config["architecture"]["name"], config["image"]
    if name != architecture.full_name:
        raise ArchitectureError(f"{asked} holds {name}, not {architecture.full_name}", fix=f"--arch {name}")
    digest = check_hash(path, config["files"][WEIGHTS])
    tensors, facts = read_tensors(path)
    if facts.get("vocab_sha256") != config["vocab_sha256"]:
        raise WeightsError(f"{path} was trained for other classes, or in another order", fix=GET_ANOTHER)
    own = {name[2:]: tensor for name, tensor in tensors.items() if name.startswith("0.")}
    check_finite(own, path)
    body.load_state_dict(own)
    return Start(asked, "bundle", origin, tuple(image["mean"]), tuple(image["std"]), digest)
