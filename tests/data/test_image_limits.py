"""What makes a small file a bomb, and what merely looks like one; whole files are tried in tests/hardening."""

import io
import struct

import pytest
from PIL import Image

from kit.data.image_limits import check_bytes, check_exif, check_tags, has_many_scans
from kit.errors import ImageError


def directory(order: str, entries: list[tuple[int, int, int, int]]) -> bytes:
    return struct.pack(order + "H", len(entries)) + b"".join(struct.pack(order + "HHII", *one) for one in entries)


def tags(order: str, entries: list[tuple[int, int, int, int]], behind: bytes = b"") -> bytes:
    """EXIF in one byte order: its first directory at byte 8, and what lies behind."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8) + directory(order, entries) + bytes(4) + behind


def overlapping(count: int = 100, size: int = 100_000) -> list[tuple[int, int, int, int]]:
    return [(1000 + number, 1, size, 8) for number in range(count)]


LARGE = bytes(100_000)


@pytest.mark.parametrize("order", ["<", ">"])
def test_values_that_overlap_are_found_in_both_byte_orders(order):
    with pytest.raises(ImageError, match="cat.tif: the values of its tags overlap"):
        check_tags(tags(order, overlapping(), LARGE), "cat.tif")


@pytest.mark.parametrize("tag", [34665, 34853, 40965])
def test_values_that_overlap_are_found_where_another_directory_is_led_to(tag):
    place = 8 + len(directory("<", [(0, 0, 0, 0)])) + 4
    data = tags("<", [(tag, 4, 1, place)], directory("<", overlapping()) + LARGE)
    with pytest.raises(ImageError, match="overlap"):
        check_tags(data, "cat.tif")


def test_values_that_overlap_are_found_in_a_big_tiff():
    entries = b"".join(struct.pack("<HHQQ", 1000 + number, 1, 100_000, 16) for number in range(100))
    data = b"II\x2b\0" + struct.pack("<HHQQ", 8, 0, 16, 100) + entries + LARGE
    with pytest.raises(ImageError, match="overlap"):
        check_tags(data, "cat.tif")


def test_values_that_overlap_are_found_in_what_an_old_png_calls_its_profile():
    text = "\nexif\n   1\n" + tags("<", overlapping(), LARGE).hex()
    with pytest.raises(ImageError, match="overlap"):
        check_exif({"Raw profile type exif": text}, "cat.png")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II",
        b"no tags at all",
        tags("<", [(274, 3, 1, 6)]),
        tags("<", [(282, 5, 1, 26), (283, 5, 1, 26)], bytes(8)),
        tags("<", [(37500, 7, 4_000_000_000, 8), (274, 3, 1, 6)]),
        tags("<", [(34665, 4, 1, 8)] * 10),
        tags(">", [(34665, 4, 1, 0xFFFFFFFF)]),
        b"Exif\0\0" * 3 + tags("<", [(274, 3, 1, 6)]),
    ],
    ids=["empty", "short", "text", "one", "shared", "a wrong count", "loops", "nowhere", "names"],
)
def test_tags_that_are_odd_and_harmless_pass(data):
    check_tags(data, "cat.jpg")
    check_exif({"exif": data}, "cat.jpg")


@pytest.mark.parametrize("info", [{}, {"exif": None}, {"Raw profile type exif": "no profile"}, {"exif": b""}])
def test_an_image_without_exif_passes(info):
    check_exif(info, "cat.jpg")


def jpeg(**options) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(stream, "JPEG", **options)
    return stream.getvalue()


def test_the_scans_of_a_jpeg_are_counted_and_not_what_looks_like_one():
    assert not has_many_scans(jpeg(), most=1)
    assert has_many_scans(jpeg(progressive=True), most=5)
    assert not has_many_scans(jpeg(progressive=True), most=20)
    looks = b"\xff\xda" * 200
    assert not has_many_scans(jpeg(comment=looks), most=1)
    assert not has_many_scans(jpeg() + looks, most=1)
    assert not has_many_scans(b"", most=0)


def test_a_file_is_refused_by_its_size_alone():
    check_bytes(1, "cat.jpg")
    with pytest.raises(ImageError, match="cat.jpg: the file is empty"):
        check_bytes(0, "cat.jpg")
    with pytest.raises(ImageError, match="300,000,000 bytes; at most 200,000,000 are read"):
        check_bytes(300_000_000, "cat.jpg")
