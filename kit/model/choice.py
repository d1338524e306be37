"""Which network `--arch auto` means: the one that the weights are of, or one whose weights can be had at once.

choose_architecture("auto", "imagenet").name     # resnet18, or tf_efficientnet_lite0 where no network is reached
"""

from kit.console import say
from kit.errors import FetchError, OutputError
from kit.manifest import find_bundle, read_config
from kit.model import hub
from kit.model.architectures import AUTO, Architecture, find_architecture
from kit.model.weight_packages import LITE0
from kit.model.weight_paths import find_path
from kit.model.weights import torchvision_file

USUAL = "resnet18"


def choose_architecture(arch: str, weights: str) -> Architecture:
    """The architecture of a recipe's `arch` and `weights`.

    "auto" with imagenet is resnet18 where its ImageNet weights are here or can be fetched, else EfficientNet-Lite0,
    whose weights a package brings; one line says which, and why. With a bundle, a run, or an ID of the hub it is what
    their config names; else resnet18. Raises `KitError` where such a config cannot be read.
    """
    if arch != AUTO:
        return find_architecture(arch)
    if weights == "imagenet":
        return _with_imagenet()
    return find_architecture(_named_by(weights) or USUAL)


def _with_imagenet() -> Architecture:
    usual = find_architecture(USUAL)
    try:
        path = torchvision_file(usual)
    except (FetchError, OutputError) as error:
        if LITE0.path is None:
            return usual  # it falls back to kit's own weights, and says so
        reason = " ".join(error.problem.split())
        say(f"network: {LITE0.arch}, whose ImageNet weights are installed; those of {USUAL} cannot be had: {reason}")
        return find_architecture(LITE0.arch)
    say(f"network: {USUAL}, because its ImageNet weights are here: {path}")
    return usual


def _named_by(weights: str) -> str | None:
    """The network that a bundle or a repository of the hub says it is; None for other weights."""
    if weights in ("bundled", "none"):
        return None
    if weights.startswith(hub.PREFIXES):
        found = hub.read(weights)
        return found.config["architecture"]["name"] if found.is_bundle else hub.facts(found).architecture
    path = find_path(weights)
    return read_config(find_bundle(path))["architecture"]["name"] if path.is_dir() else None
