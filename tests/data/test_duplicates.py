"""Duplicates: copies of a picture are found, different pictures stay apart, and large sets finish."""

import io
import os
from itertools import pairwise
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from kit.data.duplicates import NEAR_BITS, NEAR_COLOURS, greys, groups, hashes, shrink
from kit.errors import ImageError


def drawing(seed: int, side: int = 256) -> Image.Image:
    """A soft landscape of random waves with a few shapes on it: as varied as a photo, as small as a test."""
    numbers = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    waves = [
        np.sin(2 * np.pi * (numbers.uniform(-3, 3) * across + numbers.uniform(-3, 3) * down + numbers.random()))
        for _ in range(9)
    ]
    pixels = 128 + np.stack([sum(waves[channel::3]) for channel in range(3)], axis=-1) * 35
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pencil = ImageDraw.Draw(image)
    for _ in range(5):
        left, top, width = (
            numbers.integers(0, side * 3 // 4),
            numbers.integers(0, side * 3 // 4),
            numbers.integers(20, 90),
        )
        box = [int(left), int(top), int(left + width), int(top + width)]
        pencil.ellipse(box, fill=tuple(int(value) for value in numbers.integers(0, 256, 3)))
    return image


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(as_jpeg(image, quality))).convert("RGB")


def brightened(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def grouped(images, digests=None):
    pictures = np.stack([shrink(image) for image in images])
    return groups(pictures, hashes(pictures), digests or [str(index) for index in range(len(images))])


def grouped_prints(prints, digests=None):
    """The same of pairs of a hash and a small picture, made up."""
    hashed = np.array([hash_ for hash_, _ in prints], dtype=np.uint64)
    pictures = np.array([picture for _, picture in prints], dtype=np.uint8).reshape(-1, 32, 32, 3)
    return groups(pictures, hashed, digests or [str(index) for index in range(len(prints))])


def plain(*colour: int) -> Image.Image:
    return Image.new("RGB", (40, 30), colour)


COPIES = {
    "resized to 50 %": lambda image: resized(image, 0.5),
    "resized to 80 %": lambda image: resized(image, 0.8),
    "recompressed at quality 40": lambda image: recompressed(image, 40),
    "recompressed at quality 90": lambda image: recompressed(image, 90),
    "resized to 50 % and recompressed at quality 50": lambda image: recompressed(resized(image, 0.5), 50),
    "brightened by 3 %": lambda image: brightened(image, 1.03),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_grouped_with_its_original_and_with_nothing_else(how):
    originals = [drawing(seed) for seed in range(24)]
    copies = [COPIES[how](image) for image in originals]
    assert grouped(originals + copies) == [[index, index + 24] for index in range(24)]


def test_different_pictures_stay_apart():
    assert grouped([drawing(seed) for seed in range(150)]) == []


def test_a_hundred_plain_colours_stay_apart_though_they_have_few_hashes():
    colours = [
        (red, green, blue) for red in range(0, 250, 50) for green in range(0, 250, 50) for blue in (0, 60, 120, 180)
    ]
    images = [plain(*colour) for colour in colours]
    assert len(images) == 100
    assert len(set(hashes(np.stack([shrink(image) for image in images])).tolist())) < 10
    assert grouped(images) == []


def test_the_same_shape_in_another_colour_is_another_picture():
    red, blue = plain(250, 250, 250), plain(250, 250, 250)
    red.paste((220, 30, 30), (10, 5, 30, 25))
    blue.paste((30, 80, 220), (10, 5, 30, 25))
    assert grouped([red, blue]) == []


def test_equal_files_are_found_even_where_their_fingerprints_would_differ():
    assert grouped([drawing(1), drawing(2), drawing(3)], ["a", "b", "a"]) == [[0, 2]]


def test_being_a_duplicate_is_passed_on():
    prints = [shade(100), shade(107), shade(114), shade(140)]
    assert grouped_prints(prints[::2], ["a", "c"]) == []
    assert grouped_prints(prints, list("abcd")) == [[0, 1, 2]]


def test_groups_and_their_members_ascend():
    first, second = drawing(1), drawing(2)
    assert grouped([second, first, drawing(3), first, second, first]) == [[0, 4], [1, 3, 5]]


def test_five_bits_apart_or_nine_colour_steps_apart_is_too_far():
    base = shade(100)
    assert grouped_prints([base, shade(100, 0b1111 << 30)], ["a", "b"]) == [[0, 1]]
    assert grouped_prints([base, shade(100, 0b11111 << 30)], ["a", "b"]) == []
    assert grouped_prints([base, shade(108)], ["a", "b"]) == [[0, 1]]
    assert grouped_prints([base, shade(109)], ["a", "b"]) == []


def test_no_picture_and_one_picture_make_no_group():
    assert grouped_prints([]) == []
    assert grouped([drawing(1)]) == []


def test_an_image_of_another_mode_is_refused():
    with pytest.raises(
        ImageError, match=r'an image of mode "L" has no fingerprint; RGB was expected\n  Fix: image.convert'
    ):
        shrink(Image.new("L", (8, 8)))


def test_one_digest_a_picture_is_expected():
    with pytest.raises(ValueError, match="1 pictures, 1 hashes and 2 digests; expected one of each per picture"):
        grouped_prints([shade(1)], ["a", "b"])


def test_the_hash_has_the_bits_of_imagehash():
    images = [drawing(seed, 90) for seed in range(40)] + [
        plain(20, 30, 40),
        Image.effect_noise((50, 40), 90).convert("RGB"),
    ]
    small = [shrink(image) for image in images]
    bits = [np.packbits(imagehash.phash(Image.fromarray(one)).hash) for one in small]
    assert hashes(np.stack(small)).tolist() == [int.from_bytes(one.tobytes(), "big") for one in bits]


def test_grey_levels_are_pillows():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(greys(noise), np.asarray(Image.fromarray(noise).convert("L")))


def test_twenty_thousand_random_fingerprints_finish():
    numbers = np.random.default_rng(0)
    colours = numbers.integers(0, 256, (20_000, 32, 32, 3), dtype=np.uint8)
    hashed = numbers.integers(0, 2**64, 20_000, dtype=np.uint64)
    assert groups(colours, hashed, [str(index) for index in range(20_000)]) == []


def test_ten_thousand_plain_colours_of_one_hash_finish():
    colours = np.random.default_rng(0).integers(0, 256, (10_000, 3), dtype=np.uint8)
    found = grouped_prints([(0, np.broadcast_to(colour, (32, 32, 3))) for colour in colours])
    assert all(first < second for group in found for first, second in pairwise(group))


def test_the_quick_search_finds_what_comparing_every_pair_finds():
    numbers = np.random.default_rng(5)
    colours = numbers.integers(0, 256, (500, 3), dtype=np.uint8)
    hashed = [int(value) for value in numbers.integers(0, 64, 500)]
    prints = [(hash_, np.broadcast_to(colour, (32, 32, 3))) for hash_, colour in zip(hashed, colours, strict=True)]
    assert grouped_prints(prints) == every_pair(prints)


def every_pair(prints) -> list[list[int]]:
    """The groups by the definition in the module's docstring, slowly."""
    found, unseen = [], set(range(len(prints)))
    while unseen:
        group, waiting = [], [min(unseen)]
        unseen -= set(waiting)
        while waiting:
            group.append(waiting.pop())
            near = {other for other in unseen if is_near(prints[group[-1]], prints[other])}
            unseen -= near
            waiting += near
        found.append(sorted(group))
    return [group for group in found if len(group) > 1]


def is_near(one, other) -> bool:
    if (one[0] ^ other[0]).bit_count() > NEAR_BITS:
        return False
    return np.abs(one[1].astype(float) - other[1]).mean() <= NEAR_COLOURS


def test_thousands_of_almost_equal_pictures_are_one_group():
    numbers = np.random.default_rng(0)
    colours = 250 + numbers.integers(0, 4, (4000, 32, 32, 3), dtype=np.uint8)
    assert grouped_prints([(7, colour) for colour in colours]) == [list(range(4000))]


def shade(grey: int, hash_: int = 0):
    return hash_, np.full((32, 32, 3), grey, dtype=np.uint8)


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    shared = os.environ.get("KIT_SHARED")
    found = sorted(Path(shared, "images", "pets").glob("*.jpg")) if shared else []
    if not found:
        pytest.skip("needs KIT_SHARED=FOLDER with photos in FOLDER/images/pets/*.jpg")
    return found


@pytest.fixture(scope="module")
def opened(photos) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in photos]


@pytest.mark.shared
def test_no_two_of_the_real_photos_are_grouped(opened):
    assert grouped(opened) == []


@pytest.mark.shared
@pytest.mark.parametrize("factor", [0.5, 0.75])
def test_every_real_photo_is_found_again_when_resized_and_recompressed(opened, factor):
    smaller = [recompressed(resized(image, factor), 50) for image in opened]
    assert grouped(opened + smaller) == [[index, index + len(opened)] for index in range(len(opened))]


@pytest.mark.shared
@pytest.mark.parametrize("factor", [0.5, 0.75])
def test_every_real_photo_is_found_again_when_both_are_decoded_at_a_fraction_of_their_size(photos, factor):
    images = [decoded_small(path.read_bytes()) for path in photos]
    for path in photos:
        smaller = resized(Image.open(path).convert("RGB"), factor)
        images.append(decoded_small(as_jpeg(smaller, 50)))
    found = grouped(images)
    assert found == [[index, index + len(photos)] for index in range(len(photos))]


def decoded_small(content: bytes) -> Image.Image:
    """At 1/2, 1/4 or 1/8 of its size, as long as both sides keep 128 pixels."""
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (128, 128))
    return image.convert("RGB")
