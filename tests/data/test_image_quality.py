"""What images look like: small, dark, bright, plain and blurred ones are named, good ones are not."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

from kit import data
from kit.data import scan
from kit.data.scan import scan_images, sharpness
from kit.errors import DataError


def scene(seed: int, size: tuple[int, int] = (300, 200)) -> Image.Image:
    """Coarse and fine speckles: as sharp as a photo, and no two alike."""
    dice = np.random.default_rng(seed)
    layers = [
        Image.fromarray(dice.integers(0, 256, (height, height * 3 // 2, 3), dtype=np.uint8)).resize(size)
        for height in (3, 12, 50, 200)
    ]
    return Image.fromarray(np.mean([np.asarray(layer, float) for layer in layers], 0).astype(np.uint8))


ODD = {
    "tiny.png": ("smaller than half of what the network sees", lambda: scene(1, (60, 50))),
    "dark.png": ("almost black", lambda: scene(2).point(lambda value: value // 7)),
    "bright.png": ("almost white", lambda: scene(3).point(lambda value: 235 + value // 13)),
    "plain.png": ("of one plain colour", lambda: Image.new("RGB", (300, 200), (200, 30, 30))),
    "soft.png": ("blurred", lambda: scene(5).filter(ImageFilter.GaussianBlur(6))),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(20):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        scene(100 + number).save(path, quality=90)
    for name, (_, make) in ODD.items():
        make().save(folder / "a" / name)
    scene(100).resize((240, 160)).save(folder / "b" / "copy.png")
    return folder


@pytest.fixture(scope="module")
def survey(folder):
    return data.survey(folder)


def notes(survey, **options):
    return [finding.text for finding in data.check(survey, **options).findings if finding.severity == "note"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_named_and_no_good_one_with_it(survey, name):
    assert f"1 image is {ODD[name][0]}: {name}" in notes(survey)


def test_what_counts_as_small_depends_on_what_the_network_sees(survey):
    assert not any("smaller than half" in text for text in notes(survey, size=64))
    assert any(text.startswith("26 images are smaller than half") for text in notes(survey, size=1000))


def test_the_smallest_the_largest_and_the_middle_size_are_told(survey):
    assert "sizes from 60 x 50 to 300 x 200 pixels, median 300 x 200" in notes(survey)


def test_a_table_without_looks_is_checked_without_them(folder):
    table = data.table(folder)
    assert list(table) == ["path", "label", "split", "group", "sha256"]
    assert not any(text.startswith("sizes from") for text in notes(table))


def test_the_size_is_that_of_the_whole_image_turned_as_it_is_shown(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    scene(1, (1600, 900)).save(tmp_path / "a.jpg", exif=turned)
    scene(2, (1600, 900)).save(tmp_path / "b.jpg")
    scene(3, (90, 40)).save(tmp_path / "c.png")
    facts = scan_images([tmp_path / name for name in ("a.jpg", "b.jpg", "c.png")]).facts
    assert [(fact.width, fact.height) for fact in facts] == [(900, 1600), (1600, 900), (90, 40)]


def test_light_is_measured_of_the_good_files_alone(tmp_path):
    for name, level in (("a.png", 10), ("c.png", 200)):
        Image.new("RGB", (40, 40), (level,) * 3).save(tmp_path / name)
    (tmp_path / "b.png").write_text("broken")
    scan = scan_images([tmp_path / name for name in ("a.png", "b.png", "c.png")])
    assert [fact.problem is None for fact in scan.facts] == [True, False, True]
    assert scan.light.tolist() == [[10, 0], [200, 0]]
    assert scan.pictures[:, 0, 0, 0].tolist() == [10, 200]


def test_no_file_at_all_is_no_trouble():
    scan = scan_images([])
    assert (scan.facts, scan.duplicates(), scan.light.shape) == ([], [], (0, 2))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 2), (400, 300)])
def test_one_grey_has_no_sharpness_and_any_size_has_one(size):
    assert sharpness(Image.new("RGB", size, (90, 90, 90))) == 0.0
    assert np.isfinite(sharpness(scene(0, size)))


def test_the_report_can_be_drawn(survey, tmp_path):
    data.draw_check(survey, data.check(survey), tmp_path / "check.png")
    width, height = Image.open(tmp_path / "check.png").size
    assert width > 1000
    assert height > 900


def test_processes_see_what_threads_see(shapes, tmp_path, monkeypatch):
    (tmp_path / "broken.png").write_text("broken")
    paths = sorted(shapes.rglob("*.png"))
    paths.insert(3, tmp_path / "broken.png")
    monkeypatch.setattr(scan, "BLOCK", 5)
    by_threads = scan_images(paths)
    monkeypatch.setattr(scan, "MANY", 1)
    monkeypatch.setattr(scan, "core_count", lambda: 2)
    monkeypatch.setattr(scan, "_scan_block", None)  # here; a process has its own
    by_processes = scan_images(paths)
    assert by_processes.facts == by_threads.facts
    assert by_processes.facts[3].problem is not None
    for name in ("pictures", "hashes", "light"):
        assert np.array_equal(getattr(by_processes, name), getattr(by_threads, name))


def test_many_files_are_looked_at_from_a_script_that_guards_nothing(shapes, tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from pathlib import Path\nfrom kit.data import scan\nprint('once')\n"
        "scan.MANY, scan.core_count = 1, lambda: 2\n"
        f"print(len(scan.scan_images(sorted(Path({str(shapes)!r}).rglob('*.png'))).good))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["once", str(len(list(shapes.rglob("*.png"))))]


def test_a_process_that_ends_is_told_of(shapes, monkeypatch):
    monkeypatch.setattr(scan, "MANY", 1)
    monkeypatch.setattr(scan, "core_count", lambda: 2)
    monkeypatch.setattr(scan, "_scan_in_process", lambda block: os._exit(1))
    with pytest.raises(DataError, match="a process that reads the images was killed, perhaps"):
        scan_images(sorted(shapes.rglob("*.png")))
