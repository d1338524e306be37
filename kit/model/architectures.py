"""Names of networks, the library each comes from, and how a network is cut into body and head.

find_architecture("resnet18").library            # 'torchvision'
find_architecture("timm/resnet18").library       # 'timm'
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from kit.errors import ArchitectureError, did_you_mean, some_of

AUTO = "auto"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """A network: its library and its name there.

    cut: of a torchvision network, the negative number of last layers that are its own head. split: the layer where the
    body is divided in two parameter groups for discriminative rates (None: the body is one group).
    """

    library: str
    name: str
    cut: int | None = None
    split: int | None = None

    @property
    def full_name(self) -> str:
        """The name for which `find_architecture` returns this network."""
        return self.name if self.library == "torchvision" else f"timm/{self.name}"


_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_WIDER = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")
TORCHVISION = {name: Architecture("torchvision", name, cut=-2, split=6) for name in (*_RESNETS, *_WIDER)}


def find_architecture(name: str) -> Architecture:
    """The architecture of a name: a residual network of torchvision, else of timm; `timm/NAME` is always timm's.

    A tag chooses among timm's weights: resnet18.a1_in1k. Raises `ArchitectureError` with "did you mean" for an unknown
    name or tag.
    """
    if name in TORCHVISION:
        return TORCHVISION[name]
    if name == AUTO:
        problem = f"{name!r} is no network here: it is chosen by the weights, when a learner is made"
        raise ArchitectureError(problem, fix="name one: --arch resnet18")
    if name.startswith(("hub:", "hf-hub:")):
        problem = f"{name!r} is not a network but weights of one"
        raise ArchitectureError(problem, fix=f"--arch NETWORK --weights {name}; its page on the hub names the network")
    plain = name.removeprefix("timm/")
    if plain.split(".")[0] in _timm_names():
        _check_tag(plain)
        return Architecture("timm", plain)
    hint = did_you_mean(plain, [*TORCHVISION, *_timm_names()])
    fix = f"one of {', '.join(_RESNETS)}, ..., or a name that timm.list_models() gives"
    raise ArchitectureError(f"unknown network {name!r}.{hint}", fix=fix)


@cache
def _timm_names() -> frozenset[str]:
    import timm

    return frozenset(timm.list_models())


def _check_tag(name: str) -> None:
    """Raise `ArchitectureError` where timm has no weights of the tag in NETWORK.TAG."""
    network, _, tag = name.partition(".")
    known = _tags(network) if tag else ()
    if tag and tag not in known:
        hint = did_you_mean(tag, known)
        names = some_of([f"{network}.{one}" for one in known])
        fix = f"one of {names}" if names else f"--arch {network}, without a tag"
        raise ArchitectureError(f"timm has no weights {tag!r} of {network}.{hint}", fix=fix)


def _tags(network: str) -> list[str]:
    import timm

    names = timm.list_pretrained(f"{network}.*")
    return [tag for base, _, tag in (name.partition(".") for name in names) if base == network]


def build_network(architecture: Architecture) -> nn.Module:
    """The whole network with random weights, as its library builds it; a timm network without its classifier."""
    if architecture.library == "torchvision":
        import torchvision.models

        return getattr(torchvision.models, architecture.name)(weights=None)
    import timm

    return timm.create_model(architecture.name, pretrained=False, num_classes=0)


class ChannelsFirst(nn.Module):
    """Wraps a body with output (n, height, width, channels) to return (n, channels, height, width)."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) to features (n, channels, height, width)."""
        return self.body(images).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Body:
    """A network without its head. features: how many channels or features; pooled: whether output is (n, features)."""

    module: nn.Module
    features: int
    pooled: bool


def cut_body(network: nn.Module, architecture: Architecture, size: int) -> Body:
    """The body of a network; a timm network is run once on zeros of `size` x `size` pixels to find its layout.

    Output of shape (n, c, h, w) or (n, c) is used as it is, (n, h, w, c) is permuted. Raises `ArchitectureError` for
    another shape, or for a size that the network does not accept.
    """
    if architecture.cut is not None:
        return Body(nn.Sequential(*list(network.children())[: architecture.cut]), network.fc.in_features, False)
    from fastai.vision.learner import TimmBody

    body = TimmBody(network, pretrained=False)
    shape = _shape_of_features(body, architecture, size)
    features = network.num_features
    if len(shape) == 2:
        return Body(body, shape[1], True)
    if len(shape) == 4 and shape[1] == features:
        return Body(body, features, False)
    if len(shape) == 4 and shape[3] == features:
        return Body(ChannelsFirst(body), features, False)
    problem = f"{architecture.name} gives features of shape {tuple(shape)}, which no head fits"
    raise ArchitectureError(problem, fix="choose a network that gives (n, channels, height, width), like resnet50")


@torch.no_grad()
def _shape_of_features(body: nn.Module, architecture: Architecture, size: int) -> torch.Size:
    was_training = body.training
    try:
        return body.eval()(torch.zeros(2, 3, size, size)).shape
    except Exception as error:
        asked = body.model.default_cfg.get("input_size", (3, 224, 224))[-1]
        problem = f"{architecture.name} cannot take images of {size} x {size} pixels ({error})"
        raise ArchitectureError(problem, fix=f"--size {asked}, or another network") from error
    finally:
        body.train(was_training)


def splitter(architecture: Architecture) -> Callable[[nn.Module], list]:
    """fastai's splitter for (body, head): for a ResNet three groups (early body, late body, head), else two."""
    from fastai.vision.all import L, params

    if architecture.split is None:
        return lambda model: L(model[0], model[1:]).map(params)
    return lambda model: L(model[0][: architecture.split], model[0][architecture.split :], model[1:]).map(params)
