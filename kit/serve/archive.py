"""Images from a zip file, read one at a time into memory; a member that cannot be read is a row with its reason.

for name, data in images("holiday.zip"): ...
"""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kit.data.images import looks_like_image

MOST_MEMBERS = 2000
MOST_BYTES_EACH = 50_000_000
MOST_BYTES_TOGETHER = 1_000_000_000
MOST_BYTES_OF_DIRECTORY = 4_000_000
BAD = (zipfile.BadZipFile, OSError, NotImplementedError, ValueError)
TOO_MANY = "a zip of too many files"


class Refused(str):
    """Why a member of a zip is not read."""


def is_zip(path: str | Path) -> bool:
    """Whether the name says so."""
    return Path(path).suffix.lower() == ".zip"


def count(path: str | Path) -> int:
    """How many rows `images` will give, by the zip's central directory; 1 for the row that says it has none."""
    try:
        with _open(path) as archive:
            return min(len([one for one in archive.infolist() if _counts(one)]), MOST_MEMBERS + 1) or 1
    except BAD:
        return 1


def images(path: str | Path) -> Iterator[tuple[str, bytes | Refused]]:
    """(name in the zip, its bytes, or why not) for each file; hidden files and folders do not count.

    The size that a member states is not trusted: the bytes are counted as they are unpacked.
    """
    try:
        archive = _open(path)
    except BAD as error:
        yield Path(path).name, Refused(TOO_MANY if TOO_MANY in str(error) else "not a zip, or a damaged one")
        return
    with archive:
        members = [one for one in archive.infolist() if _counts(one)]
        if not members:
            yield Path(path).name, Refused("an empty zip")
        left = MOST_BYTES_TOGETHER
        for member in members[:MOST_MEMBERS]:
            data = _read(archive, member, min(left, MOST_BYTES_EACH))
            left -= 0 if isinstance(data, Refused) else len(data)
            yield member.filename, data
        if len(members) > MOST_MEMBERS:
            yield Path(path).name, Refused(f"{len(members):,} files; the first {MOST_MEMBERS:,} were read")


def _open(path: str | Path) -> zipfile.ZipFile:
    """Open a zip after a look at the size of its central directory, of which zipfile would read all into memory."""
    with Path(path).open("rb") as stream:
        end = zipfile._EndRecData(stream)
    if end and end[zipfile._ECD_SIZE] > MOST_BYTES_OF_DIRECTORY:
        raise ValueError(TOO_MANY)
    return zipfile.ZipFile(path)


def _counts(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)
    return not member.is_dir() and not hidden


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes | Refused:
    if reason := _reason(member):
        return Refused(reason)
    try:
        with archive.open(member) as file:
            data = file.read(most + 1)
    except Exception as error:  # zipfile, zlib, lzma and bz2 each have errors of their own
        return Refused(f"cannot be unpacked ({str(error) or type(error).__name__})")
    return Refused(f"unpacks to more than {most:,} bytes") if len(data) > most else data


def _reason(member: zipfile.ZipInfo) -> str:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in member.filename:
        return "its path leads out of the zip"
    if member.flag_bits & 1:
        return "needs a password"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link, not a file"
    return "" if looks_like_image(Path(name.name)) else "not an image by its name"
