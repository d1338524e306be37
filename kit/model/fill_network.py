"""Load the tensors of a file into a network, completely or not at all.

fill(network, find_architecture("resnet18"), tensors, path)
"""

from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from kit.errors import WeightsError
from kit.model.architectures import Architecture
from kit.model.weightfile import check_finite

HEADS = ("fc.", "head.", "classifier.")


def fill(network: nn.Module, architecture: Architecture, tensors: dict[str, Tensor], path: Path) -> None:
    """Load all tensors but the classifier's; all other learned ones must be present, of the right shape, and finite.

    Tensors that timm's own loader renames or reshapes are converted by it. Raises `WeightsError`.
    """
    if _misfit(network, tensors) and architecture.library == "timm":
        with suppress(Exception):  # tensors that timm cannot convert either are reported below
            tensors = _as_timm_reads(architecture, tensors)
    if problem := _misfit(network, tensors):
        fix = "give the weights of the network that --arch names"
        raise WeightsError(f"{path} is of another network: {problem}", fix=fix)
    own = network.state_dict()
    wanted = {name: tensors[name] for name in own if name in tensors and not _is_head(network, name)}
    check_finite(wanted, path)
    network.load_state_dict(wanted, strict=False)


def _is_head(network: nn.Module, name: str) -> bool:
    """Whether a tensor belongs to the classifier of a torchvision network, which kit replaces."""
    return name.startswith("fc.") and isinstance(getattr(network, "fc", None), nn.Linear)


def _misfit(network: nn.Module, tensors: dict[str, Tensor]) -> str | None:
    """Why `tensors` do not fit a network, or None. Integer buffers, such as batch counters, may be missing."""
    own = network.state_dict()
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = (*HEADS, *(f"{name}." for name in ([named] if isinstance(named, str) else named)))
    wanted = {name: tensor for name, tensor in own.items() if not _is_head(network, name)}
    missing = sorted(name for name in wanted if name not in tensors and wanted[name].is_floating_point())
    others = (name for name in tensors if name not in own and not name.startswith(heads))
    unexpected = sorted(name for name in others if tensors[name].is_floating_point())
    reshaped = sorted(name for name in wanted if name in tensors and tensors[name].shape != own[name].shape)
    for what, names in (("lacks", missing), ("has also", unexpected), ("has in another shape", reshaped)):
        if names:
            return f"it {what} {len(names)} tensors ({', '.join(names[:3])}, ...)"
    return None


def _as_timm_reads(architecture: Architecture, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of timm's network after its own loader, which knows older names and layouts, loaded `tensors`.

    timm keeps the random values of parameters that a file lacks. So it first loads the same file filled with NaN: a
    parameter without NaN was not in it. Raises `ValueError` that names such a parameter, and whatever timm raises.
    """
    import timm

    def built(state: dict[str, Tensor]) -> nn.Module:
        overlay = {"state_dict": state, "custom_load": False}
        return timm.create_model(architecture.name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)

    blank = {
        name: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    for name, parameter in built(blank).named_parameters():
        if parameter.numel() and not parameter.isnan().any():
            raise ValueError(f"{name} is not in the file")
    return built(tensors).state_dict()
