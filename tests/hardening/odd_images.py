"""Images that are odd, damaged or meant to harm, made byte by byte where no library would make them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MILLION = 1_000_000


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def deflated(zeros: int) -> bytes:
    """So many zeros, deflated a million at a time."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(min(MILLION, zeros - done))) for done in range(0, zeros, MILLION)]
    return b"".join(parts) + packer.flush()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes, depth: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """A PNG of the chunks `before` its pixels; of zeros, or of `rows`, each with its filter byte."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    pixels = deflated((width * bits // 8 + 1) * height) if rows is None else zlib.compress(rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + b"".join(before) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def claims(width: int, height: int, colour: int = 2) -> bytes:
    """A PNG whose header says so, with hardly any pixels behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def tiff(tags: list[tuple[int, int, int, int]], body: bytes) -> bytes:
    """A little-endian TIFF: a body at byte 8, and a directory behind it. A tag: number, type, count, value."""
    body += b"\0" * (len(body) % 2)
    short, long = struct.Struct("<HHIHxx"), struct.Struct("<HHII")
    entries = b"".join((short if tag[1] == 3 else long).pack(*tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def grey_tags(width: int, height: int, size: int, bits: int = 8, compression: int = 1) -> list[tuple]:
    """The tags of a grey TIFF of one strip of `size` bytes."""
    long, short = 4, 3
    return [
        (256, long, 1, width), (257, long, 1, height), (258, short, 1, bits), (259, short, 1, compression),
        (262, short, 1, 1), (273, long, 1, 8), (277, short, 1, 1), (278, long, 1, height), (279, long, 1, size),
    ]  # fmt: skip


def overlapping_tags(count: int, size: int) -> bytes:
    """EXIF whose every value is the same bytes."""
    entries = b"".join(struct.pack("<HHII", 1 + number, 1, size, 8) for number in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries


def text_bomb(kind: bytes, each: int, count: int) -> bytes:
    """A PNG of `count` texts that unpack to `each` bytes; the sign at their beginning makes 4 bytes of every other."""
    text = zlib.compress("\U0001f600".encode() + b"a" * (each - 4), 9)
    head = b"%d\0\1\0\0\0" if kind == b"iTXt" else b"%d\0\0"
    return png(8, 8, *(chunk(kind, head % number + text) for number in range(count)))


def tiled(size: int, tile: int, data: bytes, compression: int = 1) -> bytes:
    """A grey TIFF of size x size pixels in one tile of tile x tile."""
    tags = [tag for tag in grey_tags(size, size, 0, compression=compression) if tag[0] not in (273, 278, 279)]
    return tiff([*tags, (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 8), (325, 4, 1, len(data))], data)


def scan_bomb(size: int, scans: int, progressive: bool) -> bytes:
    """A JPEG that is painted over and over again."""
    image = encoded(Image.new("L" if progressive else "RGB", (size, size)), "JPEG", progressive=progressive)
    if progressive:
        last = image[image.rindex(b"\xff\xda") : -2]
        return image[:-2] + last * scans + b"\xff\xd9"
    empty = b"".join(b"\xff\xda\x00\x08\x01" + bytes([part]) + b"\x00\x00\x3f\x00" for part in (1, 2, 3))
    return image[: image.index(b"\xff\xda")] + empty * (scans // 3) + b"\xff\xd9"


def gif_comment(size: int) -> bytes:
    """A GIF with a comment of so many bytes before its picture."""
    image = encoded(Image.new("P", (8, 8)), "GIF")
    place = 13 + (3 * (2 << (image[10] & 7)) if image[10] & 0x80 else 0)
    return image[:place] + b"!\xfe" + (b"\xff" + b"a" * 255) * (size // 256) + b"\0" + image[place:]


def jpeg_with(segment: bytes, kind: int = 0xE1, times: int = 1) -> bytes:
    """A JPEG with a segment behind its beginning."""
    image = encoded(Image.new("RGB", (8, 8)), "JPEG")
    return image[:2] + (bytes((0xFF, kind)) + struct.pack(">H", len(segment) + 2) + segment) * times + image[2:]


def twelve_bits(values: np.ndarray) -> bytes:
    """A TIFF of 12 bits a pixel: two pixels in three bytes."""
    height, width = values.shape
    pairs = values.reshape(-1, 2).astype(int)
    data = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    data = data.astype(np.uint8).tobytes()
    return tiff(grey_tags(width, height, len(data), bits=12), data)


def wide_rgb(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], depth=16, colour=2, rows=rows)
