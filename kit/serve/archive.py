"""Read the images of a zip file one at a time into memory, within limits on their number and unpacked size.

for name, data in images("holiday.zip"): ...
"""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kit.data.images import looks_like_image

MAX_MEMBERS = 2000
MAX_MEMBER_BYTES = 50_000_000
MAX_TOTAL_BYTES = 1_000_000_000
MAX_DIRECTORY_BYTES = 4_000_000
ZIP_ERRORS = (zipfile.BadZipFile, OSError, NotImplementedError, ValueError)
TOO_MANY = "a zip of too many files"


class Refused(str):
    """The reason why a member of a zip file is not read."""


def is_zip(path: str | Path) -> bool:
    """Whether the file name ends in .zip."""
    return Path(path).suffix.lower() == ".zip"


def count(path: str | Path) -> int:
    """How many pairs `images` yields, according to the zip's central directory; 1 where that cannot be read."""
    try:
        with _open(path) as archive:
            return min(sum(map(_is_visible, archive.infolist())), MAX_MEMBERS + 1) or 1
    except ZIP_ERRORS:
        return 1


def images(path: str | Path, start: int = 0) -> Iterator[tuple[str, bytes | Refused]]:
    """Yield each file's name in the zip, and its bytes or the reason why it is not read. Hidden files are skipped.

    start: how many files are skipped; their stated size counts towards the limit of all. Bytes of the others are
    counted while they are unpacked, because the size that the zip states may be wrong.
    """
    try:
        archive = _open(path)
    except ZIP_ERRORS as error:
        yield Path(path).name, Refused(TOO_MANY if TOO_MANY in str(error) else "not a zip, or a damaged one")
        return
    with archive:
        members = [one for one in archive.infolist() if _is_visible(one)]
        if not members:
            yield Path(path).name, Refused("an empty zip")
        left = MAX_TOTAL_BYTES - sum(member.file_size for member in members[:start])
        for member in members[start:MAX_MEMBERS]:
            data = _read(archive, member, max(0, min(left, MAX_MEMBER_BYTES)))
            left -= 0 if isinstance(data, Refused) else len(data)
            yield member.filename, data
        if len(members) > MAX_MEMBERS:
            yield Path(path).name, Refused(f"{len(members):,} files; the first {MAX_MEMBERS:,} were read")


def _open(path: str | Path) -> zipfile.ZipFile:
    """Open a zip whose central directory is small: zipfile reads all of it into memory."""
    with Path(path).open("rb") as stream:
        end = zipfile._EndRecData(stream)
    if end and end[zipfile._ECD_SIZE] > MAX_DIRECTORY_BYTES:
        raise ValueError(TOO_MANY)
    return zipfile.ZipFile(path)


def _is_visible(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)
    return not member.is_dir() and not hidden


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes | Refused:
    if reason := _refusal(member):
        return Refused(reason)
    try:
        with archive.open(member) as file:
            data = file.read(most + 1)
    except Exception as error:  # zipfile, zlib, lzma and bz2 raise different errors
        return Refused(f"cannot be unpacked ({str(error) or type(error).__name__})")
    return Refused(f"unpacks to more than {most:,} bytes") if len(data) > most else data


def _refusal(member: zipfile.ZipInfo) -> str:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in member.filename:
        return "its path leads out of the zip"
    if member.flag_bits & 1:
        return "needs a password"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link, not a file"
    return "" if looks_like_image(Path(name.name)) else "not an image by its name"
