"""Images that are not files of this machine, by the URLs of fsspec, as in pandas: s3://, gs://, hf://, https://, ...

for url in find_urls("s3://bucket/photos"): open_url(url)

fsspec comes with kit; most kinds of URL need one package more, which an error names.
"""

import io
import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from kit.data.image_limits import MAX_BYTES
from kit.data.images import looks_like_image
from kit.data.listing import OWN_FILES, OWN_OUTPUT, SYSTEM_FOLDERS
from kit.errors import DataError, ImageError, first_line
from kit.offline import offline

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

HERE = ("file", "local", "memory")


def is_url(source: Any) -> bool:
    """Whether an image or a folder is named by a URL, as "s3://bucket/photos"."""
    return isinstance(source, str) and "://" in source


def walk_urls(url: str) -> Iterator[tuple[str, str | None]]:
    """As `listing.walk_images`, of a folder, a file or a pattern on a remote file system.

    Memory grows with the files of one folder. Raises `DataError` where the URL cannot be read.
    """
    system, root = _system(url)
    try:
        if not system.isdir(root):
            found = sorted(system.glob(root))
            if not found:
                raise DataError(f"{url}: there is no such file or folder", fix="correct the URL")
            yield from ((system.unstrip_protocol(path), None) for path in found)
            return
        for where, folders, names in system.walk(root, on_error="raise"):
            if any(own.issubset(names) for own in OWN_FILES):
                folders.clear()
                yield where, OWN_OUTPUT
            else:
                folders[:] = sorted(name for name in folders if not name.startswith(SYSTEM_FOLDERS))
                images = filter(looks_like_image, map(PurePosixPath, sorted(names)))
                yield from ((system.unstrip_protocol(posixpath.join(where, name)), None) for name in images)
    except DataError:
        raise
    except Exception as error:  # each file system has its own
        problem = f"{url} cannot be listed: {first_line(error)}"
        raise DataError(problem, fix="check the URL, the network and your credentials") from error


def open_url(url: str) -> BinaryIO:
    """The bytes of a remote image as a file with the name `url`. Raises `ImageError`."""
    try:
        system, path = _system(url)
        with system.open(path, "rb") as file:
            content = io.BytesIO(file.read(MAX_BYTES + 1))
    except FileNotFoundError as error:
        raise ImageError(f"{url}: there is no such file", fix="correct the URL") from error
    except DataError as error:
        raise ImageError(f"{url}: {error.problem}", fix=error.fix) from error
    except Exception as error:
        problem = f"{url}: cannot be read ({first_line(error)})"
        raise ImageError(problem, fix="check the network and your credentials") from error
    content.name = url
    return content


def _system(url: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    protocol = url.split("://")[0]
    if (switch := offline()) and protocol not in HERE:
        raise DataError(
            f"{protocol}:// needs the network, and {switch} turns it off", fix="unset it, or copy the images"
        )
    try:
        return url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or protocol
        raise DataError(f"{protocol}:// needs the package {package}", fix=f"pip install {package}") from error
    except ValueError as error:
        raise DataError(f"{url}: {first_line(error)}", fix="s3://, gs://, hf://, https://, or a folder") from error
