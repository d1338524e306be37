"""The program that draws the sample, and what lies in the repository's folder of it."""

import re
from pathlib import Path

import imagehash
import numpy
import pytest
from PIL import Image

from draw_sample import draw, main
from drawing.animals import meet
from drawing.breeds import BREEDS, CATS, DOGS

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


@pytest.fixture(scope="module")
def paths() -> list[Path]:
    return sorted(SAMPLE.glob("*.jpg"))


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    image = draw("Persian", 21)
    assert image.mode == "RGB"
    assert image.tobytes() == draw("Persian", 21).tobytes()
    assert image.tobytes() != draw("Persian", 22).tobytes()


def test_every_pattern_belongs_to_one_cat_and_to_one_dog():
    assert sorted(breed.pattern for breed in CATS) == sorted(breed.pattern for breed in DOGS)
    assert len({breed.pattern for breed in CATS}) == len(CATS)


def test_scene_colours_pose_and_light_come_from_the_seed_and_not_from_the_breed():
    looks = [meet(name, 12).look for name in BREEDS]
    assert all(look == looks[0] for look in looks)


def test_a_pattern_lays_the_same_colours_on_cats_and_dogs():
    dogs = {dog.pattern: dog for dog in DOGS}
    for cat in CATS:
        one, other = meet(cat.name, 9).coat, meet(dogs[cat.pattern].name, 9).coat
        assert (one.ground, one.muzzle, one.face) == (other.ground, other.muzzle, other.face)


def test_the_command_draws_the_files_that_lie_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("draw_sample.BREEDS", list(BREEDS)[:2])
    monkeypatch.setattr("sys.argv", ["draw_sample.py", "--out", str(tmp_path), "--each", "1"])
    main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Siamese_001.jpg", "Tabby_001.jpg"]
    for path in tmp_path.iterdir():
        drawn, stored = (numpy.asarray(Image.open(file), dtype=float) for file in (path, SAMPLE / path.name))
        assert numpy.abs(drawn - stored).max() <= 2  # 0 with the same libjpeg


def test_the_folder_holds_as_many_cats_as_dogs_of_every_breed_in_2_megabytes(paths):
    assert sorted(SAMPLE.iterdir()) == paths
    assert sum(path.stat().st_size for path in paths) <= 2_000_000
    names = [re.fullmatch(r"(\w+)_\d{3}\.jpg", path.name)[1] for path in paths]
    assert {name: names.count(name) for name in names} == dict.fromkeys(BREEDS, 48)
    assert {breed.name for breed in CATS} == {name for name in names if name[0].isupper()}


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
