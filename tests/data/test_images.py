"""The one image loader: upright RGB from every format and mode, a clear refusal for everything else."""

import io

import numpy as np
import pytest
from PIL import Image

from kit.data.images import looks_like_image, open_image, square
from kit.data.listing import list_images
from kit.errors import ImageError


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def quarters() -> Image.Image:
    """A 40 x 20 image with four different quarters: red, green, blue, white."""
    image = Image.new("RGB", (40, 20), "white")
    for colour, place in (("red", (0, 0)), ("green", (20, 0)), ("blue", (0, 10))):
        image.paste(colour, (*place, place[0] + 20, place[1] + 10))
    return image


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_every_format_on_the_list_opens_as_the_same_rgb_image(form):
    options = {"lossless": True} if form == "WEBP" else {}
    assert open_image(encoded(quarters(), form, **options)).tobytes() == quarters().tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation):
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = quarters() if undo is None else quarters().transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert open_image(encoded(stored, "PNG", exif=exif)).tobytes() == quarters().tobytes()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "PA", "CMYK", "1", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    else:
        image = Image.new("RGB", (8, 8), "white").convert(mode.replace("PA", "P"))
    form = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    opened = open_image(encoded(image, form))
    assert opened.mode == "RGB"
    assert np.asarray(opened).min() >= 250


def test_transparent_pixels_become_white_and_not_what_was_hidden_under_them():
    hidden = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert open_image(encoded(hidden)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_and_not_cut():
    middle = Image.fromarray(np.full((8, 8), 32896, np.uint16))
    assert open_image(encoded(middle)).getpixel((0, 0)) == (128, 128, 128)


def test_floats_beyond_0_to_1_are_refused_since_they_have_no_agreed_meaning():
    wild = Image.fromarray(np.full((8, 8), 300.0, np.float32))
    with pytest.raises(ImageError, match="grey values from 300 to 300; 0 to 1 was expected"):
        open_image(encoded(wild, "TIFF"))


def test_a_large_jpeg_is_decoded_small_but_never_below_twice_the_wanted_size():
    large = encoded(Image.effect_noise((1600, 1200), 50).convert("RGB"), "JPEG")
    assert open_image(large).size == (1600, 1200)
    assert open_image(large, at_least=128).size == (400, 300)
    assert open_image(large, at_least=224).size == (800, 600)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, I am text", "not an image of the formats JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of the formats"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of the formats"),
        (encoded(quarters(), "JPEG")[:-300], "the image is cut off"),
    ],
)
def test_a_bad_file_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match="nothing.png: there is no such file"):
        open_image(tmp_path / "nothing.png")


def test_an_image_too_large_for_the_memory_is_refused_from_its_header():
    bomb = encoded(Image.new("1", (12_000, 10_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ImageError, match="12000 x 10000 pixels; at most 100,000,000 are decoded"):
        open_image(bomb)
    with pytest.raises(ImageError, match="more pixels than the 100,000,000 that are decoded"):
        open_image(encoded(Image.new("1", (20_000, 20_000)), "PNG"))


@pytest.mark.parametrize(("how", "corner"), [("crop", (255, 0, 0)), ("squish", (255, 0, 0)), ("pad", (0, 0, 0))])
def test_a_wide_image_becomes_square(how, corner):
    made = square(quarters(), 20, how)
    assert made.size == (20, 20)
    assert made.getpixel((0, 0)) == corner


def test_hidden_files_and_other_suffixes_do_not_look_like_images(tmp_path):
    for name in ("a.JPG", "b.png", "._c.jpg", ".hidden.png", "d.txt", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).touch()
    images, others = list_images(tmp_path)
    assert [path.name for path in images] == ["a.JPG", "b.png"]
    assert [path.name for path, _ in others] == ["Thumbs.db", "d.txt"]
    assert not looks_like_image(tmp_path / "._c.jpg")


@pytest.mark.parametrize("how", ["crop", "squish"])
@pytest.mark.parametrize("size", [(90, 60), (61, 90), (33, 33), (500, 375), (1, 1), (7, 200), (129, 128)])
def test_a_validation_image_becomes_square_as_fastais_resize_makes_it(how, size):
    from fastai.vision.all import PILImage, Resize

    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for side in (32, 128):
        theirs = Resize(side, method=how)(PILImage(image), split_idx=1)
        assert np.array_equal(np.asarray(square(image, side, how)), np.asarray(theirs))
