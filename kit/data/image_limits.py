"""Limits for image files that would need too much memory or time: decompression bombs are refused before decoding.

check_file(data, name); image = Image.open(io.BytesIO(data)); check_image(image, data, name)

Pillow limits only the number of pixels, to 179 million. Other cases found: PNG text chunks (67 kB became 258 MB), TIFF
tiles larger than the image (1 kB, 1.5 GB), overlapping EXIF values (9 MB, 1 GB; 1 MB took minutes), and progressive
JPEGs with many scans (433 kB, 20 seconds).
"""

import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from PIL import Image, JpegImagePlugin

from kit.errors import ImageError

MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000
MAX_TEXT = 8 << 20
MAX_PARTS = 10_000
MAX_TILE = 4 << 20
MAX_SCANS = 100
PNG, GIF, JPEG, TIFF = b"\x89PNG\r\n\x1a\n", b"GIF8", b"\xff\xd8\xff", (b"II", b"MM")
# Pillow decompresses up to 1 MiB of each text; deflate expands a byte to at most 1032.
UNPACKED_EACH, DEFLATE = 1 << 20, 1032
TILE_WIDTH, TILE_LENGTH = 322, 323
# JPEG markers of a segment or of the end; not stuffed bytes, restart markers or fill bytes.
MARKER, ALONE = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]"), (0x01, 0xD8)
END, START_OF_SCAN, EXIF, MPF = 0xD9, 0xDA, b"Exif\0\0", b"MPF\0"
# Bytes of a value of each TIFF type, and the tags that point to further directories.
SIZES = dict(zip(range(1, 19), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8), strict=True))
LEADING_ON, MAX_DIRECTORIES = (34665, 34853, 40965), 8
SMALLER = "save it smaller"
AGAIN = "open it in an image editor and save it again"


def check_bytes(size: int, name: str) -> None:
    """Raise `ImageError` for an empty file or one over 200 MB."""
    if size == 0:
        raise ImageError(f"{name}: the file is empty", fix="replace or remove this file")
    if size > MAX_BYTES:
        raise ImageError(f"{name}: {size:,} bytes; at most {MAX_BYTES:,} are read", fix=SMALLER)


def check_file(data: bytes, name: str) -> None:
    """Raise `ImageError` for a file whose header Pillow should not read."""
    check_bytes(len(data), name)
    if data.startswith(PNG):
        _check_png(data, name)
    elif data.startswith(GIF):
        _check_gif(data, name)
    elif data.startswith(JPEG):
        _check_jpeg(data, name)
    elif data.startswith(TIFF):
        check_tags(data, name)


def check_size(image: Image.Image, name: str) -> None:
    """Raise `ImageError` for an image of more than 100 million pixels."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width} x {height} pixels; at most {MAX_PIXELS:,} are decoded", fix=SMALLER)


def check_image(image: Image.Image, data: bytes, name: str) -> None:
    """Raise `ImageError` for an image that should not be decoded. image: opened from `data`, not loaded."""
    check_size(image, name)
    if image.format == "TIFF":
        _check_tiles(image, name)
    elif image.format in ("JPEG", "MPO") and not _has_one_scan(image, data) and has_many_scans(data):
        raise ImageError(f"{name}: a JPEG of more than {MAX_SCANS} scans", fix=AGAIN)


def _check_png(data: bytes, name: str) -> None:
    """Limit the number of chunks, and the size of decompressed text."""
    offset, text, parts = len(PNG), 0, 0
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        parts += kind not in (b"IDAT", b"fdAT")
        if kind in (b"zTXt", b"iTXt"):
            text += min(size * DEFLATE, UNPACKED_EACH)
        _check_parts(parts, name)
        _check_text(text, MAX_TEXT, name)
        offset += size + 12


def _check_gif(data: bytes, name: str) -> None:
    """Limit comments before the first image: Pillow joins their blocks of 255 bytes one by one."""
    flags = data[10] if len(data) > 10 else 0
    begun = offset = 13 + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
    while data[offset : offset + 1] == b"!":
        offset += 2
        while offset < len(data) and data[offset]:
            offset += data[offset] + 1
        offset += 1
        _check_text(offset - begun, UNPACKED_EACH, name)


def _check_jpeg(data: bytes, name: str) -> None:
    """Limit the number of segments before the image, and refuse overlapping EXIF or MPF values."""
    exif = b""
    for parts, (kind, segment) in enumerate(_segments(data)):
        _check_parts(parts, name)
        if kind == START_OF_SCAN:
            break
        if segment.startswith(EXIF):
            exif += segment.removeprefix(EXIF) if exif else segment
        elif segment.startswith(MPF):
            check_tags(segment[len(MPF) :], name)
    check_tags(exif, name)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG, found as Pillow finds them."""
    offset = 0
    while found := MARKER.search(data, offset):
        offset, kind = found.end(), data[found.end() - 1]
        handler = JpegImagePlugin.MARKER.get(0xFF00 | kind, ("", "", None))[2]
        size = int.from_bytes(data[offset : offset + 2], "big") if handler else 0
        yield kind, data[offset + 2 : offset + size]
        offset += size


def _check_parts(parts: int, name: str) -> None:
    if parts > MAX_PARTS:
        raise ImageError(f"{name}: more than {MAX_PARTS:,} parts", fix=AGAIN)


def _check_text(size: int, most: int, name: str) -> None:
    if size > most:
        raise ImageError(f"{name}: its texts may take more than {most:,} bytes", fix=AGAIN)


def check_tags(data: bytes, name: str) -> None:
    """Raise `ImageError` where tag values overlap so that together they are much larger than `data`, a TIFF or EXIF."""
    if data.startswith(EXIF * MAX_DIRECTORIES):
        raise ImageError(f"{name}: its EXIF data begin again and again", fix=AGAIN)
    data = data[re.match(rb"(?:Exif\0\0)*", data).end() :]
    order, big = ">" if data[:2] == b"MM" else "<", data[2:3] == b"\x2b"
    total, offsets = 0, list(_at(order + ("Q" if big else "I"), data, 8 if big else 4))
    for offset in offsets:
        for tag, kind, count, value in _entries(data, order, big, offset):
            total += min(count * SIZES.get(kind, 0), len(data))
            if total > 4 * len(data) + UNPACKED_EACH:
                raise ImageError(f"{name}: the values of its tags overlap", fix=AGAIN)
            if tag in LEADING_ON and len(offsets) < MAX_DIRECTORIES:
                offsets.append(value)


def _entries(data: bytes, order: str, big: bool, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count, and value or its offset, of each entry of a directory, as far as the data go."""
    head, form = (order + "Q", order + "HHQQ") if big else (order + "H", order + "HHII")
    (count,) = _at(head, data, offset) or (0,)
    first, size = offset + struct.calcsize(head), struct.calcsize(form)
    for number in range(count):
        if not (entry := _at(form, data, first + number * size)):
            break
        yield entry


def _at(form: str, data: bytes, offset: int) -> tuple[int, ...]:
    """The values at an offset; () beyond the end of the data."""
    return struct.unpack_from(form, data, offset) if offset + struct.calcsize(form) <= len(data) else ()


def check_exif(info: Mapping[str, Any], name: str) -> None:
    """`check_tags` for the EXIF data in `info` of a decoded image, which Pillow has not parsed yet."""
    exif = info.get("exif") or b""
    if not exif and isinstance(text := info.get("Raw profile type exif"), str):
        with suppress(ValueError):
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    check_tags(exif, name)


def _check_tiles(image: Image.Image, name: str) -> None:
    wide, long = (image.tag_v2.get(tag, 0) for tag in (TILE_WIDTH, TILE_LENGTH))
    if wide * long > max(MAX_TILE, image.width * image.height):
        problem = f"{name}: tiles of {wide} x {long} pixels for {image.width} x {image.height}"
        raise ImageError(problem, fix=AGAIN)


def _has_one_scan(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG has a single scan: its first scan has all components. image: with only its header read."""
    size = 6 + 2 * image.layers
    header = bytes((0xFF, START_OF_SCAN, 0, size, image.layers))
    return not image.info.get("progressive") and data[: image.fp.tell()][-size - 2 :].startswith(header)


def has_many_scans(data: bytes, most: int = MAX_SCANS) -> bool:
    """Whether a JPEG has more than `most` scans before its end marker; bytes inside segments do not count."""
    offset = scans = 0
    while scans <= most and (found := MARKER.search(data, offset)):
        offset, kind = found.end(), data[found.end() - 1]
        if kind == END:
            break
        scans += kind == START_OF_SCAN
        offset += 0 if kind in ALONE else int.from_bytes(data[offset : offset + 2], "big")
    return scans > most
