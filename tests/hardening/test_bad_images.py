"""Bad and odd images: each is predicted, or refused with its reason, and the same in every way that one can be given.

The ways: training's first step, `bundle.load(...).predict`, the command line, REST in three forms, the page for one
image, the page for programs, and the page for many. After every test the next good request succeeds.
"""

import base64
import csv
import html
import io
import json
import random
import re
import struct
import subprocess
import sys
import types
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
import typer
from odd_images import (
    MILLION,
    chunk,
    claims,
    deflated,
    encoded,
    gif_comment,
    grey_tags,
    jpeg_with,
    overlapping_tags,
    png,
    scan_bomb,
    text_bomb,
    tiff,
    tiled,
    twelve_bits,
    wide_rgb,
)
from over_sockets import BOUNDARY, FORM, JSON, ask, good, image_functions, outcome, served, stored, table_of_many
from PIL import Image

from kit.cli.predict import predict as predict_command
from kit.data import images
from kit.data.images import open_image, square
from kit.data.transforms import OpenImage
from kit.errors import ImageError

LIMIT = 20 * MILLION
CLOSE = 1e-4
ORIENTATION = 0x0112
UNTURN = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}


@dataclass
class Said:
    """What one of the ways says of an image."""

    label: str | None
    shares: list[float]
    error: str | None

    def is_like(self, other: "Said") -> bool:
        alike = (self.label, self.error, len(self.shares)) == (other.label, other.error, len(other.shares))
        return alike and bool(np.allclose(self.shares, other.shares, atol=CLOSE))


@pytest.fixture(scope="module")
def drawing(shapes):
    return Image.open(shapes / "circle" / "00.png").convert("RGB")


@pytest.fixture(scope="module")
def shared_server(predictor):
    with served(predictor, max_upload=LIMIT) as server:
        yield server


@pytest.fixture
def ways(shared_server, predictor, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kit.bundle.read.load", lambda *given, **options: predictor
    )  # what it reads is tested elsewhere
    yield Ways(shared_server.port, predictor, tmp_path)
    assert good(shared_server.port, photo)


class Ways:
    """All ways to have images predicted; `files` are names with bytes."""

    def __init__(self, port, predictor, folder):
        self.port, self.predictor, self.folder = port, predictor, folder
        self.sessions = 0

    def say(self, name: str, data: bytes) -> Said:
        """What all of them say of one image, since they say the same."""
        return self.say_each({name: data})[0]

    def say_each(self, files: dict[str, bytes]) -> list[Said]:
        """What all of them say of several images."""
        said = {
            "predict": [_said(one.label, one.probabilities, one.error) for one in self._predict(files)],
            "training": self.training(files),
            "kit predict": self.command(files),
            "multipart": self.multipart(files),
            "many": self.many(files),
        }
        if len(files) == 1:
            (name, data), *_ = files.items()
            said |= {"body": [self.body(data)], "base64": [self.base64(data)], "programs": [self.programs(name, data)]}
            self.page(name, data, said["predict"][0])
        first = said["predict"]
        for way, others in said.items():
            assert len(others) == len(first), way
            for name, one, other in zip(files, first, others, strict=True):
                assert one.is_like(other), (way, name, one, other)
        return first

    def _predict(self, files):
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        return self.predictor.predict([self.folder / name for name in files])

    def training(self, files) -> list[Said]:
        """The first steps of training, and the network on what they make."""
        rules, said = self.predictor.config["image"], []
        for name in files:
            try:
                image = OpenImage(rules["at_least"]).encodes(self.folder / name)
            except ImageError as error:
                said.append(Said(None, [], error.problem.removeprefix(f"{self.folder / name}: ")))
                continue
            pixels = np.asarray(square(image, rules["size"], rules["resize"]))
            one = self.predictor.predict(Image.fromarray(pixels))[0]
            said.append(_said(one.label, one.probabilities, one.error))
        return said

    def command(self, files) -> list[Said]:
        out = self.folder / "out.csv"
        try:
            predict_command(self.predictor.folder, [str(self.folder / name) for name in files], out=out)
        except typer.Exit as stop:
            assert stop.exit_code == 1
        with out.open(newline="", encoding="utf-8") as stream:
            return [_from_row(row) for row in csv.DictReader(stream)]

    def rest(self, body, headers, count) -> list[Said]:
        status, _, said = ask(self.port, "POST", "/v1/predict", body, headers)
        rows = json.loads(said)["predictions"]
        assert status == (200 if any(row["error"] is None for row in rows) else 422)
        assert len(rows) == count
        return [_said(row["label"], row["probabilities"], row["error"]) for row in rows]

    def body(self, data) -> Said:
        return self.rest(data, {"Content-Type": "image/png"}, 1)[0]

    def base64(self, data) -> Said:
        return self.rest(json.dumps({"images": [base64.b64encode(data).decode()]}), JSON, 1)[0]

    def multipart(self, files) -> list[Said]:
        said, names = [], list(files)
        for some in (names[start : start + 50] for start in range(0, len(names), 50)):
            parts = [
                f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
                + files[name]
                + b"\r\n"
                for name in some
            ]
            said += self.rest(b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(), FORM, len(some))
        return said

    def event(self, function, data):
        self.sessions += 1
        done = outcome(self.port, function, data, f"images{self.sessions}")
        assert done["success"], done
        return done["output"]["data"]

    def programs(self, name, data) -> Said:
        """The page's function for `gradio_client`."""
        (row,) = self.event(image_functions(self.port)[1], [{"path": stored(self.port, name, data)}])
        return _said(row["label"], row["probabilities"], row["error"])

    def page(self, name, data, expected: Said) -> None:
        """What a visitor sees of one image."""
        (seen,) = self.event(image_functions(self.port)[0], [{"path": stored(self.port, name, data)}])
        if expected.error is None:
            assert f"<b>{expected.label}</b>" in seen
        else:
            assert expected.error.lower() in html.unescape(seen).lower()
        assert "number " not in seen

    def many(self, files) -> list[Said]:
        """The page's table of many images, from a zip of them."""
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        path = stored(self.port, "several.zip", zipped.getvalue())
        return [_from_row(row) for row in table_of_many(self.port, [path])[1]]


def _said(label, probabilities, error) -> Said:
    return Said(label, [probabilities[name] for name in sorted(probabilities)], error)


def _from_row(row) -> Said:
    shares = [float(row[name]) for name in sorted(row) if name.startswith("p_") and row[name]]
    return Said(row["prediction"] or None, shares, row["error"] or None)


def test_these_tests_compare(ways, photo, drawing):
    one, other = (
        ways.say("a.png", photo),
        ways.say("b.png", encoded(drawing.rotate(90).point(lambda v: 255 - v), "PNG")),
    )
    assert one.error is None
    assert len(one.shares) == 3
    assert not one.is_like(other)


COLOURS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
PLAIN = Image.fromarray(COLOURS[:6, :8]).resize((64, 48), Image.Resampling.BICUBIC)
NOT_AN_IMAGE = "not an image of the formats JPEG, PNG"
HALVES = {
    form: (encoded(PLAIN, form)[: len(encoded(PLAIN, form)) // 2], reason)
    for form, reason in {
        "JPEG": "the image is cut off",
        "PNG": "the image is cut off",
        "GIF": "the image is cut off",
        "BMP": "the image is cut off",
        "TIFF": "the image is cut off",
        "WEBP": "cannot be decoded",
    }.items()
}
NO_IMAGES = {
    "zero bytes": (b"", "the file is empty"),
    "one byte": (b"\xff", NOT_AN_IMAGE),
    "text": (b"a cat, really", NOT_AN_IMAGE),
    "HTML": (b"<!doctype html><img src=cat.jpg>", NOT_AN_IMAGE),
    "SVG": (
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        NOT_AN_IMAGE,
    ),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n", NOT_AN_IMAGE),
    "PDF": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", NOT_AN_IMAGE),
    "an icon": (encoded(PLAIN, "ICO"), NOT_AN_IMAGE),
    "signatures alone": (b"\x89PNG\r\n\x1a\n", NOT_AN_IMAGE),
    **{f"half a {form}": bad for form, bad in HALVES.items()},
}


@pytest.mark.parametrize("what", NO_IMAGES)
def test_24_what_is_no_image_or_half_of_one_is_refused_with_its_reason(ways, what):
    data, reason = NO_IMAGES[what]
    said = ways.say("bad.jpg", data)
    assert said.error.startswith(reason)
    assert said.label is None


def test_24_bad_files_among_good_ones_are_listed_where_they_stand(ways, photo):
    files = {f"{number:02}.jpg": data for number, (data, _) in enumerate(NO_IMAGES.values())}
    said = ways.say_each({"first.png": photo} | files | {"last.png": photo})
    assert [one.error is None for one in said] == [True] + [False] * len(NO_IMAGES) + [True]
    assert all(one.error.startswith(reason) for one, (_, reason) in zip(said[1:-1], NO_IMAGES.values(), strict=True))


TOO_MUCH_TEXT, OVERLAP, PARTS = (
    "its texts may take more than",
    "the values of its tags overlap",
    "more than 10,000 parts",
)
BOMBS = {
    "a header of 50,000 x 50,000": (lambda: claims(50_000, 50_000), "more pixels than the 100,000,000"),
    "169 megapixels": (lambda: png(13_000, 13_000), "13000 x 13000 pixels; at most 100,000,000 are decoded"),
    "one large text": (lambda: text_bomb(b"zTXt", 1 << 26, 1), "cannot be decoded (Decompressed data too large"),
    "a large profile": (
        lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + deflated(1 << 26))),
        "cannot be decoded (Decompressed data too large",
    ),
    "zTXt": (lambda: text_bomb(b"zTXt", 1 << 20, 63), TOO_MUCH_TEXT),
    "iTXt": (lambda: text_bomb(b"iTXt", 1 << 20, 63), TOO_MUCH_TEXT),
    "chunks": (lambda: png(8, 8, chunk(b"abCd", b"") * 800_000), PARTS),
    "a tile larger than its image": (
        lambda: tiled(8, 40_000, deflated(MILLION), compression=8),
        "tiles of 40000 x 40000 pixels for 8 x 8",
    ),
    "tags of a TIFF": (
        lambda: tiff(
            [*grey_tags(8, 8, 64), *((1000 + number, 1, 9 * MILLION, 8) for number in range(60))], bytes(9 * MILLION)
        ),
        OVERLAP,
    ),
    "tags of a JPEG": (lambda: jpeg_with(b"Exif\0\0" + overlapping_tags(5000, 60_000)), OVERLAP),
    "tags of an MPO": (lambda: jpeg_with(b"MPF\0" + overlapping_tags(5000, 60_000), 0xE2), OVERLAP),
    "tags of a PNG": (lambda: png(8, 8, chunk(b"eXIf", overlapping_tags(60_000, 700_000))), OVERLAP),
    "names of EXIF": (lambda: png(8, 8, chunk(b"eXIf", b"Exif\0\0" * 1_500_000)), "its EXIF data begin again"),
    "segments": (lambda: jpeg_with(b"", 0xE5, 2 * MILLION), PARTS),
    "scans": (lambda: scan_bomb(2000, 60_000, True), "a JPEG of more than 100 scans"),
    "empty scans": (lambda: scan_bomb(2000, 60_000, False), "a JPEG of more than 100 scans"),
    "a comment": (lambda: gif_comment(9 * MILLION), TOO_MUCH_TEXT),
    **{
        f"a {form} of 65,000 x 65,000": (make, "more pixels than the 100,000,000")
        for form, make in {
            "BMP": lambda: _patched("BMP", b"\x08\0\0\0\x08\0\0\0", struct.pack("<ii", 65_000, 65_000)),
            "GIF": lambda: _patched("GIF", b"\x08\0\x08\0", struct.pack("<HH", 65_000, 65_000)),
            "JPEG": lambda: _patched("JPEG", b"\x08\0\x08\0\x08", b"\x08" + struct.pack(">HH", 65_000, 65_000)),
            "TIFF": lambda: tiff(grey_tags(65_000, 65_000, 64), bytes(64)),
        }.items()
    },
}


def _patched(form: str, old: bytes, new: bytes) -> bytes:
    """An image of 8 x 8 pixels that says it was larger."""
    image = encoded(Image.new("RGB", (8, 8)), form)
    assert image.count(old) >= 1
    return image.replace(old, new, 1)


@pytest.mark.parametrize("what", BOMBS)
def test_25_a_bomb_is_refused_before_it_is_decoded(ways, what):
    make, reason = BOMBS[what]
    data = make()
    assert len(data) < 10 * MILLION
    assert ways.say("bomb.png", data).error.startswith(reason)


MEASURE = """
import sys, warnings
from kit.data.images import open_image
from kit.errors import ImageError

def memory(what):
    return int(next(line for line in open("/proc/self/status") if line.startswith(what)).split()[1])

warnings.simplefilter("ignore")
open_image(sys.argv[1])
for path in sys.argv[2:]:
    before = memory("VmRSS")
    try:
        open_image(path, at_least=32)
    except ImageError:
        pass
    print(memory("VmHWM") - before)
"""


def growth(folder, photo, *bombs: bytes) -> list[float]:
    """How much memory (MB) a process of its own takes at most when it opens each of these, beyond what it had."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    paths = [folder / f"{number}.png" for number in range(len(bombs) + 1)]
    for path, data in zip(paths, (photo, *bombs), strict=True):
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    return [int(line) / 1000 for line in done.stdout.split()]


def test_25_no_bomb_takes_50_megabytes(tmp_path, photo):
    took = growth(tmp_path, photo, *(make() for make, _ in BOMBS.values()))
    assert [(what, mb) for what, mb in zip(BOMBS, took, strict=True) if mb >= 50] == []


@pytest.mark.slow
def test_25_the_largest_image_that_is_decoded_takes_less_than_a_gigabyte(tmp_path, photo):
    kinds = {"RGBA": {"colour": 6}, "16-bit": {"depth": 16}, "RGB": {"colour": 2}, "grey and alpha": {"colour": 4}}
    took = growth(tmp_path, photo, *(png(10_000, 10_000, **kind) for kind in kinds.values()))
    assert [(kind, mb) for kind, mb in zip(kinds, took, strict=True) if mb >= 1000] == []


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as a camera that was held so would store it."""
    undo = UNTURN[orientation]
    return image if undo is None else image.transpose(Image.Transpose(undo))


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_26_the_orientation_is_undone_everywhere(ways, predictor, drawing, form):
    wide, close = drawing.crop((0, 0, 64, 40)), 0.02 if form == "JPEG" else CLOSE
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(form, {})
    files = {f"{one}.jpg": encoded(turned(wide, one), form, exif=exif_of(one), **options) for one in UNTURN}
    expected = predictor.predict(wide)[0]
    for said in [*ways.say_each(files), ways.say("turned.jpg", files["6.jpg"])]:
        assert said.label == expected.label
        assert said.shares == pytest.approx(list(expected.probabilities.values()), abs=close)
    for data in files.values():
        difference = np.asarray(open_image(data), int) - np.asarray(wide, int)
        assert np.abs(difference).max() <= (4 if form == "JPEG" else 0)


def test_26_an_image_that_was_turned_is_not_turned_again(drawing):
    once = open_image(encoded(turned(drawing, 6), "PNG", exif=exif_of(6)))
    assert open_image(once).tobytes() == drawing.tobytes()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_26_damaged_exif_data_turn_nothing(ways, drawing, form, exif):
    files = {"odd.jpg": encoded(drawing, form, exif=b"Exif\0\0" + exif), "plain.jpg": encoded(drawing, form)}
    odd, plain = ways.say_each(files)
    assert odd.is_like(plain)


GREY = np.linspace(0, 255, 64 * 48).astype(np.uint8).reshape(48, 64)
SCALED = {
    "16-bit PNG": (lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), GREY),
    "16-bit TIFF": (lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), GREY),
    "16-bit TIFF, big-endian": (lambda: encoded(Image.fromarray(GREY.astype(">u2") * 257), "TIFF"), GREY),
    "16-bit PNG in colour": (lambda: wide_rgb(COLOURS.astype(np.uint16) * 257), COLOURS),
    "12-bit TIFF": (lambda: twelve_bits(np.round(GREY / 255 * 4095)), GREY),
    "32-bit TIFF": (lambda: encoded(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"), GREY),
    "float TIFF": (lambda: encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), GREY),
}


@pytest.mark.parametrize("what", SCALED)
def test_27_wide_values_are_scaled_to_eight_bits(ways, what):
    make, values = SCALED[what]
    opened = np.asarray(open_image(make()))
    assert np.abs(opened.astype(int) - np.asarray(Image.fromarray(values).convert("RGB"), int)).max() <= 1
    said = ways.say("wide.tif", make())
    assert said.is_like(ways.say("narrow.png", encoded(Image.fromarray(opened), "PNG")))


@pytest.mark.parametrize(
    "values, reason",
    [
        (GREY.astype(np.float32), "grey values from 0 to 255; 0 to 1 was expected"),
        (np.full((8, 8), np.nan, np.float32), "grey values from nan to nan; 0 to 1 was expected"),
        (np.full((8, 8), np.inf, np.float32), "grey values from inf to inf; 0 to 1 was expected"),
        (GREY.astype(np.int32) - 10, "grey values from -10 to 245; 0 to 65535 was expected"),
        (GREY.astype(np.int32) * 1000, "grey values from 0 to 255000; 0 to 65535 was expected"),
    ],
    ids=["floats to 255", "not a number", "infinite", "negative", "beyond 16 bits"],
)
def test_27_values_without_an_agreed_meaning_are_refused(ways, values, reason):
    assert ways.say("wild.tif", encoded(Image.fromarray(values), "TIFF")).error == reason


def animated(form: str) -> bytes:
    frames = [PLAIN, *(Image.new("RGB", PLAIN.size, colour) for colour in ("red", "blue"))]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=100, lossless=True)


def half_transparent() -> Image.Image:
    image = PLAIN.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


ODD = {
    "grey": lambda: encoded(PLAIN.convert("L"), "PNG"),
    "black and white": lambda: encoded(PLAIN.convert("1"), "PNG"),
    "palette": lambda: encoded(PLAIN.quantize(40), "PNG"),
    "palette, one colour transparent": lambda: encoded(PLAIN.quantize(40), "PNG", transparency=3),
    "palette, with alpha": lambda: encoded(PLAIN.quantize(40), "PNG", transparency=bytes(range(0, 240, 6))),
    "one grey transparent": lambda: encoded(PLAIN.convert("L"), "PNG", transparency=100),
    "one colour transparent": lambda: encoded(PLAIN, "PNG", transparency=PLAIN.getpixel((3, 3))),
    "LA": lambda: encoded(half_transparent().convert("LA"), "PNG"),
    "RGBA": lambda: encoded(half_transparent(), "PNG"),
    "RGBA as WebP": lambda: encoded(half_transparent(), "WEBP"),
    "CMYK as JPEG": lambda: encoded(PLAIN.convert("CMYK"), "JPEG"),
    "CMYK as TIFF": lambda: encoded(PLAIN.convert("CMYK"), "TIFF"),
    "bad ICC as PNG": lambda: encoded(PLAIN, "PNG", icc_profile=b"no profile"),
    "bad ICC as JPEG": lambda: encoded(PLAIN, "JPEG", icc_profile=bytes(3000)),
    "progressive": lambda: encoded(PLAIN, "JPEG", progressive=True),
    "arithmetic of one component": lambda: encoded(PLAIN.convert("L"), "JPEG", progressive=True),
    "a comment": lambda: encoded(PLAIN, "JPEG", comment=b"\xff\xda" * 500),
    "many small texts": lambda: png(9, 9, *(chunk(b"iTXt", b"k%d\0\0\0\0\0v" % number) for number in range(200))),
    "animated GIF": lambda: animated("GIF"),
    "animated WebP": lambda: animated("WEBP"),
    "animated PNG": lambda: animated("PNG"),
    "pages of a TIFF": lambda: encoded(PLAIN, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))]),
    "compressed TIFF": lambda: encoded(PLAIN, "TIFF", compression="tiff_lzw"),
    "JPEG in a TIFF": lambda: encoded(PLAIN, "TIFF", compression="jpeg"),
    "a tile that is larger than its image": lambda: tiled(8, 64, bytes(range(256)) * 16),
    "MPO": lambda: encoded(PLAIN, "MPO", save_all=True, append_images=[PLAIN.rotate(180)]),
    "1 x 1": lambda: encoded(Image.new("RGB", (1, 1), "orange"), "PNG"),
    "10,000 x 1": lambda: encoded(Image.new("RGB", (10_000, 1), "orange"), "PNG"),
    "1 x 10,000": lambda: encoded(Image.new("RGB", (1, 10_000), "orange"), "JPEG"),
    "interlaced GIF": lambda: encoded(PLAIN.quantize(200), "GIF", interlace=1),
    "16 colours as BMP": lambda: encoded(PLAIN.quantize(16), "BMP"),
    "RGBA as TIFF": lambda: encoded(half_transparent(), "TIFF"),
    "much behind the end": lambda: encoded(PLAIN, "JPEG") + bytes(range(256)) * 400,
}


@pytest.mark.parametrize("what", ODD)
def test_28_an_odd_image_is_predicted_and_the_same_everywhere(ways, what):
    said = ways.say("odd.png", ODD[what]())
    assert said.error is None
    assert sum(said.shares) == pytest.approx(1, abs=CLOSE)


@pytest.mark.parametrize("how", ["crop", "pad", "squish"])
@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000), (3, 1000), (65_535, 1)], ids=str)
def test_28_the_thinnest_image_becomes_square_by_every_rule(how, size):
    made = square(Image.new("RGB", size, "orange"), 32, how)
    assert made.size == (32, 32)
    if how != "pad":  # padded first, a line of one pixel is thinner than one after resizing
        assert made.getpixel((16, 16)) == (255, 165, 0)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_28_of_an_animation_the_first_picture_counts(ways, form):
    plain = encoded(open_image(animated(form)), "PNG")
    assert ways.say("moving.gif", animated(form)).is_like(ways.say("still.png", plain))
    assert open_image(animated(form)).convert("L").getextrema()[1] > 200


def test_28_a_large_image_with_alpha_is_made_plain_in_bands_as_in_one(monkeypatch):
    whole = open_image(encoded(half_transparent(), "PNG")).tobytes()
    monkeypatch.setattr(images, "AT_ONCE", 5 * 64)
    assert open_image(encoded(half_transparent(), "PNG")).tobytes() == whole


def heic(brand: bytes, *others: bytes) -> bytes:
    """The beginning of a HEIC file."""
    box = b"ftyp" + brand + bytes(4) + b"".join(others)
    return struct.pack(">I", len(box) + 4) + box + bytes(200)


@pytest.fixture
def no_heif(monkeypatch):
    """As if pillow-heif was not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images._register_heif.cache_clear()
    yield
    images._register_heif.cache_clear()


@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg"])
@pytest.mark.parametrize("data", [heic(b"heic"), heic(b"mif1", b"miaf", b"heix")], ids=["heic", "mif1"])
def test_29_heic_names_the_package_that_it_needs(ways, no_heif, name, data):
    assert ways.say(name, data).error == "HEIC needs one package more, pillow-heif"
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        open_image(data)


def test_29_a_jpeg_that_is_named_heic_is_opened(ways, no_heif):
    assert ways.say("photo.heic", encoded(PLAIN, "JPEG")).error is None


def test_29_avif_is_not_taken_for_heic(ways, no_heif):
    assert ways.say("photo.jpg", heic(b"avif", b"mif1", b"miaf")).error.startswith(NOT_AN_IMAGE)


def test_29_heic_opens_with_pillow_heif(ways):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs: pip install pillow-heif")
    images._register_heif.cache_clear()
    stream = io.BytesIO()
    pillow_heif.from_pillow(PLAIN).save(stream, quality=100)
    assert ways.say("photo.heic", stream.getvalue()).error is None
    difference = np.asarray(open_image(stream.getvalue()), int) - np.asarray(PLAIN, int)
    assert np.abs(difference).mean() < 10


def test_29_what_pillow_heif_registers_is_used_for_heic_and_nothing_else(ways, monkeypatch):
    def register():
        Image.register_open("HEIF", lambda stream, name: PLAIN.copy(), lambda prefix: b"ftyp" in prefix)

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    images._register_heif.cache_clear()
    try:
        assert ways.say("photo.heic", heic(b"heic")).is_like(ways.say("photo.png", encoded(PLAIN, "PNG")))
        assert ways.say("photo.jpg", heic(b"avif")).error.startswith(NOT_AN_IMAGE)
    finally:
        images._register_heif.cache_clear()
        Image.OPEN.pop("HEIF")
        Image.ID.remove("HEIF")


SEEDS = [
    lambda image: encoded(image, "JPEG"),
    lambda image: encoded(image, "JPEG", progressive=True, exif=exif_of(6)),
    lambda image: encoded(image, "PNG", exif=exif_of(3)),
    lambda image: encoded(image.quantize(30), "PNG", transparency=3),
    lambda image: encoded(image, "WEBP"),
    lambda image: encoded(image, "WEBP", lossless=True),
    lambda image: encoded(image.quantize(30), "GIF"),
    lambda image: encoded(image, "BMP"),
    lambda image: encoded(image, "TIFF"),
    lambda image: encoded(image, "TIFF", compression="tiff_lzw"),
    lambda image: encoded(image.convert("L"), "TIFF", compression="tiff_deflate"),
]
LISTED = re.compile(
    r"the file is empty|not an image of the formats|the image is cut off \(|cannot be decoded \(|more pixels than the|"
    r"\d+ x \d+ pixels; at most|its texts may take|more than 10,000 parts|the values of its tags overlap|"
    r"tiles of \d+|a JPEG of more than|grey values from|HEIC needs"
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The bytes with a few of them changed, lost, moved or made up; more often near the beginning, where it hurts."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = dice.randrange(max(1, len(changed) // dice.choice((1, 1, 4, 16))))
        size = dice.choice((1, 1, 2, 4, 8, 64))
        match dice.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                changed[place : place + size] = dice.choice((b"\0", b"\xff", b"\x7f")) * size
            case 2:
                changed[place : place + 1] = bytes([changed[place] ^ 1 << dice.randrange(8)] if changed else b"")
            case 3:
                del changed[place : place + size]
            case 4:
                changed[place:place] = dice.randbytes(size)
            case _:
                changed[place:place] = changed[max(0, place - size) : place]
    return bytes(changed[: dice.randrange(len(changed) + 1)] if dice.random() < 0.05 else changed)


def mutations(image: Image.Image, count: int, seed: int) -> dict[str, bytes]:
    dice = random.Random(seed)
    seeds = [make(image) for make in SEEDS]
    return {f"{number:05}.jpg": mutated(seeds[number % len(seeds)], dice) for number in range(count)}


def check_mutations(ways, image, count, seed):
    said = ways.say_each(mutations(image, count, seed))
    assert [one.error for one in said if one.error and not LISTED.match(one.error)] == []
    assert [one for one in said if one.error is None and sum(one.shares) != pytest.approx(1, abs=CLOSE)] == []
    good = sum(one.error is None for one in said)
    assert count / 10 < good < count * 9 / 10


def test_30_two_hundred_mutated_images_are_predicted_or_refused(ways, drawing):
    check_mutations(ways, drawing, 200, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_30_two_thousand_mutated_images_are_predicted_or_refused(ways, drawing, seed):
    check_mutations(ways, drawing, 200, seed)
