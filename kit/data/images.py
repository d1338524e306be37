"""The one way in which a file becomes an image: training, the command line, and every page and API use this.

open_image("cat.jpg").size                     # an RGB Pillow image, upright
square(open_image("cat.jpg", at_least=224), 224, "crop")

Imports Pillow and numpy only, so that a prediction starts without torch.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from kit.data.image_limits import MOST_PIXELS, check_bytes, check_exif, check_file, check_image, check_size
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
SHARPNESS_MARGIN = 2
FILTER = Image.Resampling.BILINEAR
Turn = Image.Transpose
# How an image that was stored with an orientation of 2 and more is turned upright.
UPRIGHT = (
    Turn.FLIP_LEFT_RIGHT,
    Turn.ROTATE_180,
    Turn.FLIP_TOP_BOTTOM,
    Turn.TRANSPOSE,
    Turn.ROTATE_270,
    Turn.TRANSVERSE,
    Turn.ROTATE_90,
)
TURNS = dict(enumerate(UPRIGHT, 2))
EXIF = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
BITS_PER_SAMPLE = 258
AT_ONCE = 1 << 20
# A file that calls itself HEIC, first of all or among others.
HEIC = re.compile(rb"....ftyp(?:....){0,12}?he(?:ic|ix|im|is|vc|vx)", re.DOTALL)

OUTSIDE = "a link that leads out of the folder, not followed"

Source: TypeAlias = str | PathLike | bytes | BinaryIO | Image.Image


def looks_like_image(path: Path) -> bool:
    """Whether the name promises an image that `open_image` could open; hidden files (.DS_Store, ._x) never do."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path, follow_links: bool = True) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All images below `folder`, by name, and what else lies there with the reason why it is left out.

    Links to folders are not followed, links to files are, unless they lead out of `folder` and `follow_links` is off.
    Hidden files and folders do not count.
    """
    images, others, home = [], [], folder.resolve()

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
            if not looks_like_image(path):
                others.append((path, "not an image by its name"))
            elif not follow_links and path.is_symlink() and not path.resolve().is_relative_to(home):
                others.append((path, OUTSIDE))
            else:
                images.append(path)
    return images, others


def open_image(source: Source, at_least: int | None = None) -> Image.Image:
    """A file, its bytes, or a Pillow image as an upright RGB image.

    at_least: the pixels a side that are wanted in the end. A large JPEG is then decoded at 1/2, 1/4 or 1/8 of its
        size, as long as both sides stay twice as long as that (the margin keeps what a later resize would see).
    Transparent pixels become white; of an animation the first frame counts; 16-bit values are scaled to 8.
    Raises `ImageError` that names the file and the reason: nothing is replaced, nothing half-decoded is returned.
    """
    name = source_name(source)
    try:
        if isinstance(source, Image.Image):
            check_size(source, name)
            source.load()
            return _plain(source, name)
        return _decode(_read(source, name), name, at_least)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error)}", fix="replace or remove this file") from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without Pillow's remarks on odd files. It is for the caller of many threads: filters belong to the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def source_name(source: Source) -> str:
    """What an error calls an image: its path, or the name that it carries."""
    if isinstance(source, str | PathLike):
        return str(source)
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "the image")


def _read(source: str | PathLike | bytes | BinaryIO, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | PathLike):
        check_bytes(Path(source).stat().st_size, name)
        return Path(source).read_bytes()
    check_bytes(source.seek(0, io.SEEK_END), name)
    source.seek(0)
    return source.read()


def _decode(data: bytes, name: str, at_least: int | None) -> Image.Image:
    """The image of a file, with the formats on the list and no others (EPS would start a program)."""
    check_file(data, name)
    formats = FORMATS
    if HEIC.match(data):
        formats = ("HEIF",)
        if not _register_heif():
            problem = f"{name}: HEIC needs one package more, pillow-heif"
            raise ImageError(problem, fix="pip install pillow-heif, or save it as JPEG")
    with Image.open(io.BytesIO(data), formats=formats) as image:
        check_image(image, data, name)
        if at_least:
            image.draft(None, (at_least * SHARPNESS_MARGIN, at_least * SHARPNESS_MARGIN))
        image.load()
        return _plain(image, name, own=True)


@cache
def _register_heif() -> bool:
    """Whether HEIC can be opened."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


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


def _plain(image: Image.Image, name: str, own: bool = False) -> Image.Image:
    """A new image, upright and RGB, of one that is decoded. own: whether nobody else has that one."""
    top, upright = _top(image), _upright(image, name)
    if upright.has_transparency_data:
        return _by_bands(upright, _over_white)
    if top:
        return _by_bands(upright, lambda band: _from_wide_grey(band, top, name))
    if upright.mode != "RGB":
        return _by_bands(upright, lambda band: band.convert("RGB"))
    # `_new` is Pillow's own way to another image with the same pixels, without a copy of them.
    if upright is image:
        return image._new(image.im) if own else image.copy()
    return upright


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The image itself where it is upright, else turned as its EXIF data say. Damaged data say nothing."""
    check_exif(image.info, name)
    try:
        turn = TURNS.get(int(image.getexif().get(ExifTags.Base.Orientation, 1)))
    except Exception:
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in EXIF:
        turned.info.pop(key, None)
    return turned


def _by_bands(image: Image.Image, paint: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB image, painted band by band: at once, 100 megapixels with alpha would need 2 GB."""
    rows = max(1, AT_ONCE // image.width)
    if rows >= image.height:
        return paint(image)
    painted = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        painted.paste(paint(band), (0, top))
    return painted


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _top(image: Image.Image) -> float:
    """The value of white in an image of 16-bit or float greys; 0 for all others."""
    if image.mode == "F":
        return 1.0
    if not image.mode.startswith("I"):
        return 0.0
    bits = image.tag_v2.get(BITS_PER_SAMPLE) if image.format == "TIFF" else None
    return 4095.0 if bits == (12,) else 65535.0


def _from_wide_grey(image: Image.Image, top: float, name: str) -> Image.Image:
    """8-bit grey from 16-bit values (0 to 65535) or floats (0 to 1); other ranges have no agreed meaning."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        problem = f"{name}: grey values from {values.min():g} to {values.max():g}; 0 to {top:g} was expected"
        raise ImageError(problem, fix="save it as an 8-bit image")
    return Image.fromarray(np.round(values / top * 255).astype(np.uint8)).convert("RGB")


def square(image: Image.Image, size: int, how: str) -> Image.Image:
    """An RGB image as (size, size): the middle of it (crop), all of it with black borders (pad), or bent (squish).

    This is what validation and every prediction use. Crop and squish are fastai's `Resize` of validation images to the
    last bit; of training images, where the crop falls at random, it is fastai's own.
    """
    if how == "crop":
        side = max(1, int(min(image.size) / size * size))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if how == "pad":
        return ImageOps.pad(_not_too_thin(image, size), (size, size), method=FILTER)
    return image.resize((size, size), resample=FILTER)


def _not_too_thin(image: Image.Image, size: int) -> Image.Image:
    """The image; a single line of it where even that would vanish once the longer side is `size` pixels."""
    short, long = sorted(image.size)
    if round(short / long * size) > 0:
        return image
    return image.resize((size, 1) if image.width == long else (1, size), resample=FILTER)


def prepare_image(source: Source, rules: Mapping[str, Any]) -> np.ndarray:
    """An image as the rules of a bundle's config want it: uint8 (size, size, 3), RGB. Raises `ImageError`."""
    return np.array(square(open_image(source, rules["at_least"]), rules["size"], rules["resize"]), dtype=np.uint8)
