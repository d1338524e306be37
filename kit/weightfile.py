"""A file of weights, looked at before it is read: what it claims to be, without trust, without torch, in little memory.

read_header(Path("model.safetensors")).facts     # {'architecture': 'resnet18', ...}
check_pickle(Path("resnet18.pth"))               # WeightsError where reading it would do more than fill tensors
"""

import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from kit.errors import WeightsError

MOST_HEADER_BYTES = 5_000_000
MOST_TENSORS = 20_000
MOST_PICKLE_BYTES = 50_000_000
GET_AGAIN = "get the file again from where it was made"
SAFE_ONES = "give a .safetensors file, or a .pth file that holds tensors only"
UNREAD = (".pkl", ".pickle", ".npz", ".joblib")
LFS_POINTER = b"version https://git-lfs"
PICKLES_OF_AN_OLD_FILE = 5

# What torch.save writes for tensors in dictionaries. Anything else would be called with arguments from the file.
NEEDED = re.compile(
    r"collections OrderedDict|torch (\w+Storage|Size|device|(float|bfloat|half|double|int|uint|long|bool|complex)\w*)"
    r"|torch\.storage \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch\._tensor _rebuild_from_type_v2"
)
UNNAMED = ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4")


@dataclass(frozen=True)
class Header:
    """What a .safetensors file says of itself: the shape of each tensor by its name, and its text metadata."""

    shapes: dict[str, tuple[int, ...]]
    facts: dict[str, str]


def check_suffix(path: Path) -> None:
    """Raise `WeightsError` for a file whose name says that it is a pickle: it is not opened at all."""
    if path.suffix.lower() in UNREAD:
        problem = f"{path} is a {path.suffix} file: reading one can run any program that it names, so it was not read"
        yours = f"a Learner that you exported yourself becomes a bundle: kit convert {path} --trust-pickle"
        raise WeightsError(problem, fix=f"{SAFE_ONES}; {yours}")


def read_header(path: Path) -> Header:
    """The header of a .safetensors file, after a look at its form; the tensors themselves are not read.

    Raises `WeightsError` for one that is cut short, names a tensor twice, or names more than 20,000.
    """
    with path.open("rb") as file:
        _check_pointer(file, path)
        length = int.from_bytes(file.read(8), "little")
        room = path.stat().st_size - 8
        if not 2 <= length <= min(room, MOST_HEADER_BYTES):
            problem = f"its header claims {length:,} bytes of {max(room, 0):,}; at most {MOST_HEADER_BYTES:,} are read"
            raise _damaged(path, problem)
        try:
            header = json.loads(file.read(length), object_pairs_hook=_each_once)
            facts = header.pop("__metadata__", {})
            return Header({name: tuple(entry["shape"]) for name, entry in header.items()}, dict(facts))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _damaged(path, f"its header is not in order: {str(error)[:200]}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_TENSORS:
        raise ValueError(f"{len(pairs):,} tensors; at most {MOST_TENSORS:,} are read")
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} is there twice")
        found[name] = value
    return found


def check_pickle(path: Path) -> None:
    """Look at what the pickle inside a .pth file would call, and at what the file would unpack to, reading neither.

    Raises `WeightsError` where it names anything but torch's tensors, is compressed, or claims more than it holds.
    """
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
    """The pickles in a file of torch.save: one in a zip archive, or the first five in a file of before torch 1.6."""
    with path.open("rb") as file:
        _check_pointer(file, path)
        if file.read(2) == b"PK":
            yield _zipped_pickle(path)
            return
        file.seek(0)
        for _ in range(PICKLES_OF_AN_OLD_FILE):
            yield file


def _zipped_pickle(path: Path) -> BinaryIO:
    """The pickle of an archive whose members are as long as they claim to be; torch.save compresses nothing."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        size, room = sum(member.file_size for member in members), path.stat().st_size
        if size > room or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _damaged(path, f"its {room:,} bytes would unpack to {size:,}; torch.save compresses nothing")
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MOST_PICKLE_BYTES:
            raise _damaged(path, f"it holds {len(pickles)} files data.pkl; one of at most 50 MB was expected")
        return BytesIO(archive.read(pickles[0]))


def _check_pointer(file: BinaryIO, path: Path) -> None:
    """A file that Git LFS left as a few words of text is a common stumble, and no error of a parser would say so."""
    if file.read(len(LFS_POINTER)) == LFS_POINTER:
        raise WeightsError(
            f"{path} is a Git LFS pointer: it names the weights but does not hold them", fix="git lfs pull"
        )
    file.seek(0)


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path} cannot be read as weights: {reason}", fix=GET_AGAIN)
