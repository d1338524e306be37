"""Opening of images; training, command line, web page and REST API all use this loader.

open_image("cat.jpg").size                     # an RGB Pillow image, upright
square(open_image("cat.jpg", at_least=224), 224, "crop")

Imports only Pillow and numpy, so that prediction starts without torch.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from kit.data.image_limits import MAX_PIXELS, check_bytes, check_exif, check_file, check_image, check_size
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
# How images are padded to a square, and the mode of numpy.pad.
PADDING = {"pad": "constant", "pad-reflection": "reflect", "pad-border": "edge"}
LONGEST_PADDED = 8192
FILTER = Image.Resampling.BILINEAR
Turn = Image.Transpose
# How to turn an image upright whose EXIF orientation is 2, 3, ... 8.
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
# A file whose major or compatible brands include HEIC.
HEIC = re.compile(rb"....ftyp(?:....){0,12}?he(?:ic|ix|im|is|vc|vx)", re.DOTALL)

Source: TypeAlias = str | PathLike | bytes | BinaryIO | Image.Image


def looks_like_image(path: Path) -> bool:
    """Whether a file name is that of an image, not of a hidden file such as ._x.jpg."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def open_image(source: Source, at_least: int | None = None) -> Image.Image:
    """A file, its bytes, or a Pillow image as an upright RGB image.

    at_least: the size in pixels to which it will be resized. A large JPEG is then decoded at 1/2, 1/4 or 1/8 of its
        size, as long as both sides are at least twice as long, which does not reduce the quality of the resized image.
    Transparent pixels become white, of an animation the first frame is used, and 16-bit values are scaled to 8 bits.
    Raises `ImageError` with the file and the reason; a partly decoded image is never returned.
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
    """Suppress warnings, such as Pillow's about damaged files. To be used outside of threads: filters are global."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def source_name(source: Source) -> str:
    """The name of an image for messages: its path, or the name attribute of an object."""
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


def count_pixels(data: bytes) -> int:
    """The number of pixels that `open_image` would decode, by the header of the file; 0 where it would refuse it."""
    with suppress(Exception), _opened(data, "the image") as image:
        return image.width * image.height
    return 0


def _decode(data: bytes, name: str, at_least: int | None) -> Image.Image:
    """Decode the bytes of a file."""
    with _opened(data, name) as image:
        if at_least:
            image.draft(None, (at_least * SHARPNESS_MARGIN, at_least * SHARPNESS_MARGIN))
        image.load()
        return _plain(image, name, own=True)


def _opened(data: bytes, name: str) -> Image.Image:
    """Read the header of a file, in the formats of `FORMATS` only (for EPS, Pillow would start Ghostscript)."""
    check_file(data, name)
    formats = FORMATS
    if HEIC.match(data):
        formats = ("HEIF",)
        if not _register_heif():
            problem = f"{name}: HEIC needs one package more, pillow-heif"
            raise ImageError(problem, fix="pip install pillow-heif, or save it as JPEG")
    image = Image.open(io.BytesIO(data), formats=formats)
    check_image(image, data, name)
    return image


@cache
def _register_heif() -> bool:
    """Register the HEIC decoder; False where pillow-heif is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _reason(error: Exception) -> str:
    """The reason of an error, for the user."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image of the formats {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the {MAX_PIXELS:,} that are decoded"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = str(error) or type(error).__name__
    return f"the image is cut off ({text})" if "truncated" in text.lower() else f"cannot be decoded ({text})"


def _plain(image: Image.Image, name: str, own: bool = False) -> Image.Image:
    """A new upright RGB image from a decoded one. own: whether the caller does not use that one any more."""
    top, upright = _top(image), _upright(image, name)
    if upright.has_transparency_data:
        return _by_bands(upright, _over_white)
    if top:
        return _by_bands(upright, lambda band: _from_wide_grey(band, top, name))
    if upright.mode != "RGB":
        return _by_bands(upright, lambda band: band.convert("RGB"))
    # `_new` is Pillow's own way to make an image that shares the pixels.
    if upright is image:
        return image._new(image.im) if own else image.copy()
    return upright


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The image, turned upright by its EXIF orientation. Damaged EXIF data are ignored."""
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
    """An RGB image, converted in horizontal bands, because 100 megapixels with alpha at once would need 2 GB."""
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
    """The value of white in a 16-bit or float grey image; 0 for all other modes."""
    if image.mode == "F":
        return 1.0
    if not image.mode.startswith("I"):
        return 0.0
    bits = image.tag_v2.get(BITS_PER_SAMPLE) if image.format == "TIFF" else None
    return 4095.0 if bits == (12,) else 65535.0


def _from_wide_grey(image: Image.Image, top: float, name: str) -> Image.Image:
    """8-bit grey from 16-bit values (0 to 65535) or floats (0 to 1); `ImageError` for values out of range."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        problem = f"{name}: grey values from {values.min():g} to {values.max():g}; 0 to {top:g} was expected"
        raise ImageError(problem, fix="save it as an 8-bit image")
    return Image.fromarray(np.round(values / top * 255).astype(np.uint8)).convert("RGB")


def square(image: Image.Image, size: int, how: str, part: float = 1.0) -> Image.Image:
    """An RGB image resized to (size, size): its middle square (crop), stretched (squish), or padded: with black (pad),
    its mirror image (pad-reflection) or the colours of its border (pad-border).

    part: how much of each side is then kept, in the middle. Used for validation and prediction, and equal to what
    fastai's `Resize` and `RandomResizedCrop` do with validation images (padded: of up to 8192 pixels). Training images,
    which are cropped at random, use fastai's `Resize` itself.
    """
    if how == "crop":
        side = max(1, int(min(image.size) / size * size))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if how in PADDING:
        image = _padded(image, size, PADDING[how])
    whole = round(size / part)
    edge = (whole - size) // 2
    return image.resize((whole, whole), FILTER).crop((edge, edge, edge + size, edge + size))


def _padded(image: Image.Image, size: int, mode: str) -> Image.Image:
    """The image, padded to a square as fastai does; one that is longer than `LONGEST_PADDED` is reduced first."""
    if max(image.size) > LONGEST_PADDED:
        image = image.copy()
        image.thumbnail((LONGEST_PADDED, LONGEST_PADDED), FILTER)
    side = int(max(image.size) / size * size)
    spare = [max(0, side - length) for length in (image.height, image.width)]
    pixels = np.pad(np.asarray(image), [*((one // 2, one - one // 2) for one in spare), (0, 0)], mode)
    return Image.fromarray(pixels[:side, :side])


def fit_image(image: Image.Image, size: int, rules: Mapping[str, Any]) -> Image.Image:
    """An RGB image as a network sees it, at (size, size). rules: `image` of a bundle's config."""
    if rules.get("grey"):
        image = image.convert("L").convert("RGB")
    return square(image, size, rules["resize"], rules.get("part", 1.0))


def prepare_image(source: Source, rules: Mapping[str, Any]) -> np.ndarray:
    """An image prepared by the rules of a bundle's config: uint8 (size, size, 3), RGB. Raises `ImageError`."""
    return np.array(fit_image(open_image(source, rules["at_least"]), rules["size"], rules), dtype=np.uint8)
