"""Read a weights file without running code in it, after checking what it claims to contain; load it into a network.

tensors, metadata = read_tensors(Path("resnet18.safetensors"))
check_weightfile(Path("resnet18.pth"))           # WeightsError where reading would run any other code
fill(network, find_architecture("resnet18"), tensors, path)
"""

import json
import pickletools
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from kit.errors import WeightsError, first_line
from kit.files import sha256
from kit.model.architectures import Architecture

MAX_HEADER_BYTES = 1_000_000
MAX_PICKLE_BYTES = 50_000_000
GET_AGAIN = "get the file again from where it was made"
SAFE_ONES = "give a .safetensors file, or a .pth file that holds tensors only"
UNREAD = (".pkl", ".pickle", ".npz", ".joblib")
LFS_POINTER = b"version https://git-lfs"
PICKLES_OF_AN_OLD_FILE = 5

# Globals that torch.save writes for tensors in dictionaries. Any other would be called with arguments from the file.
NEEDED = re.compile(
    r"collections OrderedDict|torch (\w+Storage|Size|device|(float|bfloat|half|double|int|uint|long|bool|complex)\w*)"
    r"|torch\.storage \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch\._tensor _rebuild_from_type_v2"
)
UNNAMED = ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4")
HEADS = ("fc.", "head.", "classifier.")


def check_weightfile(path: Path) -> dict[str, str]:
    """The text metadata of a weights file ({} of a .pth file) that is safe to read; its tensors are not read.

    Raises `WeightsError` for a file name of a pickle, a .safetensors file whose header is over 1 MB or invalid, and a
    .pth file that would run code, is compressed, or claims to be larger than it is.
    """
    if path.suffix.lower() in UNREAD:
        problem = f"{path} is a {path.suffix} file: reading one can run any program that it names, so it was not read"
        yours = f"a Learner that you exported yourself becomes a bundle: kit convert {path} --trust-pickle"
        raise WeightsError(problem, fix=f"{SAFE_ONES}; {yours}")
    if path.suffix == ".safetensors":
        return _metadata(path)
    _check_pickle(path)
    return {}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a weights file by name, copied to memory, and its text metadata.

    Raises `WeightsError`, before unpacking, for a file that is damaged, unsafe, or claims to be larger than it is.
    """
    metadata = check_weightfile(path)
    try:
        if path.suffix == ".safetensors":
            # Copies: a tensor of safetensors is a memory map and would change when the file is overwritten.
            return {name: tensor.clone() for name, tensor in load_file(path).items()}, metadata
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _damaged(path, first_line(error)[:200]) from error
    for key in ("state_dict", "model"):
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no state dict", fix="save model.state_dict(), best as .safetensors")
    _check_extent(loaded, path)
    return loaded, {}


def _check_extent(tensors: dict[str, Tensor], path: Path) -> None:
    """Refuse tensors whose strides repeat a few bytes as many numbers: copying them would fill the memory."""
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
    """Raise `WeightsError` that names the first tensor with NaN or infinite values."""
    broken = sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor.float()).all())
    if broken:
        raise WeightsError(f"{path} holds values that are not finite ({broken[0]})", fix=GET_AGAIN)


def check_hash(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file; `WeightsError` where it is not the expected one."""
    found = sha256(path)
    if expected not in (None, found):
        problem = f"{path} is damaged: SHA-256 {found[:12]}..., expected {expected[:12]}..."
        raise WeightsError(problem, fix="remove it and get it again")
    return found


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        _check_pointer(file, path)
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, MAX_HEADER_BYTES))
    if length > len(header):
        raise _damaged(path, f"its header claims {length:,} bytes of {len(header):,} that may be read")
    try:
        json.loads(header, object_pairs_hook=_each_once)
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except Exception as error:  # safetensors raises one of its own, JSON may raise RecursionError
        raise _damaged(path, f"its header is not in order: {first_line(error)[:200]}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse a repeated name, of which safetensors silently takes the last."""
    if twice := next((name for name, times in Counter(name for name, _ in pairs).items() if times > 1), None):
        raise ValueError(f"{twice[:80]!r} is there twice")


def _check_pickle(path: Path) -> None:
    """Refuse a .pth file whose pickle would call anything but `NEEDED`, without running it. (torch's `weights_only`
    reader would still run `bytearray(10**9)`.)"""
    try:
        for pickle in _pickles(path):
            for opcode, value, _ in pickletools.genops(pickle):
                if opcode.name in UNNAMED or (opcode.name == "GLOBAL" and not NEEDED.fullmatch(value)):
                    what = value.replace(" ", ".") if opcode.name == "GLOBAL" else opcode.name
                    problem = f"{path} cannot be read as weights: it would run {what[:80]!r}; nothing in it was run"
                    raise WeightsError(problem, fix=SAFE_ONES)
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(path, str(error)[:200] or type(error).__name__) from error


def _pickles(path: Path) -> Iterator[BinaryIO]:
    """The pickles in a file of torch.save: one in a zip archive, or five in the format before torch 1.6."""
    with path.open("rb") as file:
        _check_pointer(file, path)
        if file.read(2) == b"PK":
            yield _zipped_pickle(path)
            return
        file.seek(0)
        for _ in range(PICKLES_OF_AN_OLD_FILE):
            yield file


def _zipped_pickle(path: Path) -> BinaryIO:
    """The pickle of a zip archive, after checking that it is not compressed: torch.save never compresses."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        size, room = sum(member.file_size for member in members), path.stat().st_size
        if size > room or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _damaged(path, f"its {room:,} bytes would unpack to {size:,}; torch.save compresses nothing")
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_BYTES:
            raise _damaged(path, f"it holds {len(pickles)} files data.pkl; one of at most 50 MB was expected")
        return BytesIO(archive.read(pickles[0]))


def _check_pointer(file: BinaryIO, path: Path) -> None:
    """Refuse a Git LFS pointer, a common mistake that a parser's error would not explain."""
    if file.read(len(LFS_POINTER)) == LFS_POINTER:
        raise WeightsError(
            f"{path} is a Git LFS pointer: it names the weights but does not hold them", fix="git lfs pull"
        )
    file.seek(0)


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path} cannot be read as weights: {reason}", fix=GET_AGAIN)


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
