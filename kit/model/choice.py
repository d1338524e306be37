"""Which network `--arch auto` means: the one that the weights belong to, or one whose weights are available.

choose_architecture("auto", "imagenet").name     # resnet18, or tf_efficientnet_lite0 offline
"""

from kit.console import say
from kit.errors import FetchError, OutputError
from kit.manifest import find_bundle, read_config
from kit.model import hub
from kit.model.architectures import AUTO, Architecture, find_architecture
from kit.model.weight_packages import LITE0
from kit.model.weight_paths import find_path
from kit.model.weights import torchvision_file

DEFAULT = "resnet18"


def choose_architecture(arch: str, weights: str) -> Architecture:
    """The architecture of a recipe's `arch` and `weights`.

    "auto" with "imagenet" is resnet18 where its ImageNet weights are on this machine or can be downloaded, else
    EfficientNet-Lite0, whose weights an installed package has; a printed line says which, and why. With a bundle, a run
    or a hub ID it is the network that their config names; else resnet18. Raises `KitError` for an unreadable config.
    """
    if arch != AUTO:
        return find_architecture(arch)
    if weights == "imagenet":
        return _with_imagenet()
    return find_architecture(_named_by(weights) or DEFAULT)


def _with_imagenet() -> Architecture:
    usual = find_architecture(DEFAULT)
    try:
        path = torchvision_file(usual)
    except (FetchError, OutputError) as error:
        if LITE0.path is None:
            return usual  # load_weights then falls back to the bundled weights and prints a note
        reason = " ".join(error.problem.split())
        say(f"network: {LITE0.arch}, whose ImageNet weights are installed; those of {DEFAULT} cannot be had: {reason}")
        return find_architecture(LITE0.arch)
    say(f"network: {DEFAULT}, because its ImageNet weights are here: {path}")
    return usual


def _named_by(weights: str) -> str | None:
    """The network that the config of a bundle or of a hub repository names; None for other weights."""
    if weights in ("bundled", "none"):
        return None
    if weights.startswith(hub.PREFIXES):
        found = hub.read(weights)
        return found.config["architecture"]["name"] if found.is_bundle else hub.timm_config(found).architecture
    path = find_path(weights)
    return read_config(find_bundle(path))["architecture"]["name"] if path.is_dir() else None
