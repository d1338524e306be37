"""Reading a file of weights without running anything in it, and filling a network with what it holds.

tensors, facts = read_tensors(Path("resnet18.safetensors")); fill(network, architecture, tensors, path)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kit.errors import WeightsError
from kit.files import sha256
from kit.model.architectures import Architecture
from kit.weightfile import GET_AGAIN, SAFE_ONES, check_pickle, check_suffix, read_header

HEADS = ("fc.", "head.", "classifier.")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a weights file by name, in memory of their own, and its text metadata.

    Raises `WeightsError` for a file that is damaged or unsafe, or claims more than it holds: before it is unpacked.
    """
    check_suffix(path)
    if path.suffix == ".safetensors":
        facts = read_header(path).facts
        return _opened(path, _safetensors), facts
    check_pickle(path)
    loaded = _opened(path, lambda path: torch.load(path, map_location="cpu", weights_only=True))
    for key in ("state_dict", "model"):
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no state dict", fix="save model.state_dict(), best as .safetensors")
    _check_extent(loaded, path)
    return loaded, {}


def _opened(path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of a file; whatever its library raises becomes one line."""
    try:
        return read(path)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(f"{path} cannot be read as weights: {reason}", fix=GET_AGAIN) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Copies, because a tensor of safetensors is the file itself: it would change when the file is written over."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def _check_extent(tensors: dict[str, Tensor], path: Path) -> None:
    """Refuse a tensor that shows the same few bytes as a billion numbers: using it would fill the memory."""
    total = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        total += size
        if tensor.layout != torch.strided or size > tensor.untyped_storage().nbytes():
            problem = f"{path} cannot be read as weights: {name} claims {tensor.numel():,} numbers and holds fewer"
            raise WeightsError(problem, fix=SAFE_ONES)
    if total > 2 * path.stat().st_size:
        problem = f"{path} cannot be read as weights: its {path.stat().st_size:,} bytes claim to be {total:,}"
        raise WeightsError(problem, fix=SAFE_ONES)


def check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise `WeightsError` that names the first tensor with a value that is not a number, or infinite."""
    broken = sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor.float()).all())
    if broken:
        raise WeightsError(f"{path} holds values that are not finite ({broken[0]})", fix=GET_AGAIN)


def check_hash(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file; `WeightsError` where another one is expected."""
    found = sha256(path)
    if expected not in (None, found):
        problem = f"{path} is damaged: SHA-256 {found[:12]}..., expected {expected[:12]}..."
        raise WeightsError(problem, fix="remove it and get it again")
    return found


def fill(network: nn.Module, architecture: Architecture, tensors: dict[str, Tensor], path: Path) -> None:
    """Load all tensors but the classifier's; every other one that is learned must be there, fit, and be finite.

    What timm's own loader would rename or reshape is read as it reads it. Raises `WeightsError`.
    """
    problem = misfit(network, tensors)
    if problem and tensors and architecture.library == "timm":
        try:
            tensors = as_timm_reads(architecture, tensors)
            problem = misfit(network, tensors)
        except Exception as error:
            raise _of_another(path, problem) from error
    if problem:
        raise _of_another(path, problem)
    own = network.state_dict()
    wanted = {name: tensors[name] for name in own if name in tensors and not _is_head(network, name)}
    check_finite(wanted, path)
    network.load_state_dict(wanted, strict=False)


def _of_another(path: Path, problem: str) -> WeightsError:
    return WeightsError(
        f"{path} is of another network: {problem}", fix="give the weights of the network that --arch names"
    )


def _is_head(network: nn.Module, name: str) -> bool:
    """Whether a tensor belongs to the classifier that a torchvision network still has, and that kit replaces."""
    return name.startswith("fc.") and isinstance(getattr(network, "fc", None), nn.Linear)


def misfit(network: nn.Module, tensors: dict[str, Tensor]) -> str | None:
    """What of `tensors` does not fit a network, in words, or None. What is counted or computed may be missing."""
    own = network.state_dict()
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = (*HEADS, *(f"{name}." for name in ([named] if isinstance(named, str) else named)))
    wanted = {name: tensor for name, tensor in own.items() if not _is_head(network, name)}
    missing = sorted(name for name in wanted if name not in tensors and wanted[name].is_floating_point())
    others = (name for name in tensors if name not in own and not name.startswith(heads))
    strange = sorted(name for name in others if tensors[name].is_floating_point())
    bent = sorted(name for name in wanted if name in tensors and tensors[name].shape != own[name].shape)
    for what, names in (("lacks", missing), ("has also", strange), ("has in another shape", bent)):
        if names:
            return f"it {what} {len(names)} tensors ({', '.join(names[:3])}, ...)"
    return None


def as_timm_reads(architecture: Architecture, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of timm's network after its own loader filled it: it knows older names and layouts.

    timm leaves at random what a file lacks. So it is first given the same file full of NaN: whatever then is not NaN
    was not in it. Raises `ValueError` that names such a parameter, and whatever timm raises.
    """
    import timm

    def built(state: dict[str, Tensor]) -> nn.Module:
        overlay = {"state_dict": state, "custom_load": False}
        return timm.create_model(architecture.name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)

    blank = {name: _blank(tensor) for name, tensor in tensors.items()}
    for name, parameter in built(blank).named_parameters():
        if parameter.numel() and not parameter.isnan().any():
            raise ValueError(f"{name} is not in the file")
    return built(tensors).state_dict()


def _blank(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
