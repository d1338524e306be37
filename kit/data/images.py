"""The one way in which a file becomes an image: training, the command line, and every page and API use this.

open_image("cat.jpg").size                     # an RGB Pillow image, upright
square(open_image("cat.jpg", at_least=224), 224, "crop")

Imports Pillow and numpy only, so that a prediction starts without torch.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from kit.errors import ImageError

# Importing a plugin is what registers its format.
_PLUGINS = {
    "JPEG": JpegImagePlugin,
    "PNG": PngImagePlugin,
    "WEBP": WebPImagePlugin,
    "GIF": GifImagePlugin,
    "BMP": BmpImagePlugin,
    "TIFF": TiffImagePlugin,
}
FORMATS = tuple(_PLUGINS)
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif")
)
MOST_PIXELS = 100_000_000
MOST_BYTES = 200_000_000
SHARPNESS_MARGIN = 2
FILTER = Image.Resampling.BILINEAR

Source = str | PathLike | bytes | BinaryIO | Image.Image


def looks_like_image(path: Path) -> bool:
    """Whether the name promises an image that `open_image` could open; hidden files (.DS_Store, ._x) never do."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All images below `folder`, by name, and what else lies there with the reason why it is left out.

    Links to files are followed, links to folders are not; hidden files and folders do not count.
    """
    images, others = [], []

    def unreadable(error: OSError) -> None:
        others.append((Path(error.filename), f"cannot be read ({error.strerror})"))

    for where, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        others += [
            (Path(where, name), "a link to a folder, not followed")
            for name in folders
            if Path(where, name).is_symlink()
        ]
        for path in (Path(where, name) for name in sorted(names) if not name.startswith(".")):
            if looks_like_image(path):
                images.append(path)
            else:
                others.append((path, "not an image by its name"))
    return images, others


def open_image(source: Source, at_least: int | None = None) -> Image.Image:
    """A file, its bytes, or a Pillow image as an upright RGB image.

    at_least: the pixels a side that are wanted in the end. A large JPEG is then decoded at 1/2, 1/4 or 1/8 of its
        size, as long as both sides stay twice as long as that (the margin keeps what a later resize would see).
    Transparent pixels become white; of an animation the first frame counts; 16-bit values are scaled to 8.
    Raises `ImageError` that names the file and the reason: nothing is replaced, nothing half-decoded is returned.
    """
    name, given = _name(source), isinstance(source, Image.Image)
    image = None
    try:
        image = source if given else _open(source, name)
        _check_size(image, name)
        if at_least and not given:
            image.draft(None, (at_least * SHARPNESS_MARGIN, at_least * SHARPNESS_MARGIN))
        image.load()
        return _rgb(ImageOps.exif_transpose(image), name)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error)}", fix="replace or remove this file") from error
    finally:
        if image is not None and not given:
            image.close()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without Pillow's remarks on odd files. It is for the caller of many threads: filters belong to the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _name(source: Source) -> str:
    if isinstance(source, str | PathLike):
        return str(source)
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "the image")


def _open(source: str | PathLike | bytes | BinaryIO, name: str) -> Image.Image:
    """Read the header only, with the formats on the list and no others (EPS would start a program)."""
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    check_bytes(
        Path(source).stat().st_size if isinstance(source, str | PathLike) else source.seek(0, io.SEEK_END), name
    )
    formats = list(FORMATS)
    if _register_heif():
        formats.append("HEIF")
    elif Path(name).suffix.lower() in (".heic", ".heif"):
        raise ImageError(f"{name}: HEIC needs one package more", fix="pip install pillow-heif, or save it as JPEG")
    return Image.open(source, formats=formats)


def check_bytes(size: int, name: str) -> None:
    """Refuse a file by its size alone: nothing, or too much."""
    if size == 0:
        raise ImageError(f"{name}: the file is empty", fix="replace or remove this file")
    if size > MOST_BYTES:
        raise ImageError(f"{name}: {size:,} bytes; at most {MOST_BYTES:,} are read", fix="save it smaller")


@cache
def _register_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _check_size(image: Image.Image, name: str) -> None:
    """Refuse what would fill the memory, from the header alone."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        problem = f"{name}: {width} x {height} pixels; at most {MOST_PIXELS:,} are decoded"
        raise ImageError(problem, fix="save it smaller")


def _reason(error: Exception) -> str:
    """What went wrong with a file, in words for the person who owns it."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image of the formats {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the {MOST_PIXELS:,} that are decoded"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = str(error) or type(error).__name__
    return f"the image is cut off ({text})" if "truncated" in text.lower() else f"cannot be decoded ({text})"


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """RGB from every mode: alpha over white, 16-bit and float greys scaled to 8 bits."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide_grey(image, name).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_wide_grey(image: Image.Image, name: str) -> Image.Image:
    """8-bit grey from 16-bit values (0 to 65535) or floats (0 to 1); other ranges have no agreed meaning."""
    values = np.asarray(image, dtype=np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        problem = f"{name}: grey values from {values.min():g} to {values.max():g}; 0 to {top:g} was expected"
        raise ImageError(problem, fix="save it as an 8-bit image")
    return Image.fromarray(np.round(values / top * 255).astype(np.uint8))


def square(image: Image.Image, size: int, how: str) -> Image.Image:
    """An RGB image as (size, size): the middle of it (crop), all of it with black borders (pad), or bent (squish).

    This is what validation and every prediction use. fastai's `Resize` does the same for training images, where
    the crop falls at random.
    """
    if how == "crop":
        return ImageOps.fit(image, (size, size), method=FILTER)
    if how == "pad":
        return ImageOps.pad(image, (size, size), method=FILTER)
    return image.resize((size, size), resample=FILTER)
