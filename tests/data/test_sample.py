"""The drawn sample: how it is drawn, and what lies in the repository's folder of it."""

import re
from dataclasses import replace
from pathlib import Path

import imagehash
import numpy
import pytest
from PIL import Image

from kit.data.drawing.animals import meet
from kit.data.drawing.breeds import BREEDS, CATS, DOGS
from kit.data.drawing.coats import PATTERNS
from kit.data.sample import draw, drawings, main

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def paths() -> list[Path]:
    return sorted(SAMPLE.glob("*.jpg"))


def test_the_same_seed_gives_the_same_pixels():
    assert draw("Persian", 21).tobytes() == draw("Persian", 21).tobytes()


def test_another_seed_gives_another_drawing():
    assert draw("beagle", 21).tobytes() != draw("beagle", 22).tobytes()


def test_a_drawing_is_in_colour_and_about_as_large_as_a_thumbnail():
    image = draw("husky", 5)
    assert image.mode == "RGB"
    assert 112 <= min(image.size) <= max(image.size) <= 136


def test_cats_have_a_capital_letter_and_dogs_have_none():
    assert all(breed.name[0].isupper() for breed in CATS)
    assert all(breed.name[0].islower() for breed in DOGS)


def test_there_are_as_many_breeds_of_cats_as_of_dogs():
    assert len(CATS) == len(DOGS) == 6


def test_every_pattern_belongs_to_one_cat_and_to_one_dog():
    assert sorted(breed.pattern for breed in CATS) == sorted(breed.pattern for breed in DOGS) == sorted(PATTERNS)


def test_scene_colours_pose_and_light_come_from_the_seed_and_not_from_the_breed():
    looks = [meet(name, 12).look for name in BREEDS]
    assert all(look == looks[0] for look in looks)


def test_another_seed_changes_the_look():
    look, other = meet("Tabby", 12).look, meet("Tabby", 13).look
    assert replace(look, seed=13) != other


def test_a_pattern_lays_the_same_colours_on_cats_and_dogs():
    for cat in CATS:
        dog = next(dog for dog in DOGS if dog.pattern == cat.pattern)
        one, other = meet(cat.name, 9).coat, meet(dog.name, 9).coat
        assert (one.ground, one.muzzle, one.face) == (other.ground, other.muzzle, other.face)


def test_the_command_writes_named_drawings(tmp_path, monkeypatch):
    monkeypatch.setattr("kit.data.sample.BREEDS", ("Siamese", "poodle"))
    monkeypatch.setattr("sys.argv", ["sample", "--out", str(tmp_path), "--each", "1"])
    main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Siamese_001.jpg", "poodle_001.jpg"]


def test_the_folder_holds_what_the_command_draws(paths):
    name, image = next(drawings())
    stored = numpy.asarray(Image.open(SAMPLE / name), dtype=float)
    assert numpy.abs(stored - numpy.asarray(image, dtype=float)).mean() < 8


def test_the_folder_holds_at_least_300_drawings_in_at_most_2_megabytes(paths):
    assert len(paths) >= 300
    assert sum(path.stat().st_size for path in paths) <= 2 * MEGABYTE


def test_the_folder_holds_nothing_but_drawings_of_the_breeds(paths):
    assert sorted(SAMPLE.iterdir()) == paths
    names = [re.fullmatch(r"(\w+)_\d{3}\.jpg", path.name) for path in paths]
    assert {match and match[1] for match in names} == set(BREEDS)


def test_half_of_the_folder_are_cats(paths):
    assert sum(path.name[0].isupper() for path in paths) * 2 == len(paths)


def test_the_files_carry_no_metadata(paths):
    for path in paths:
        with Image.open(path) as image:
            assert not image.getexif()
            assert "exif" not in image.info and "comment" not in image.info


def test_no_two_drawings_are_near_duplicates(paths):
    images = [Image.open(path).convert("RGB") for path in paths[::3]]
    hashes = numpy.array([imagehash.phash(image).hash.ravel() for image in images])
    small = numpy.array([numpy.asarray(image.resize((32, 32)), dtype=float).ravel() for image in images])
    bits = (hashes[:, None] != hashes[None]).sum(axis=2)
    close = [(i, j) for i, j in numpy.argwhere(bits <= 4) if i < j]
    assert not [pair for pair in close if numpy.abs(small[pair[0]] - small[pair[1]]).mean() < 8]
