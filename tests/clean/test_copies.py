"""Near copies are found by features and aligned pixels."""

from pathlib import Path

import numpy as np
import pytest
from conftest import draw_shape
from PIL import Image, ImageEnhance, ImageOps

from kit import data
from kit.clean.copies import find_copies
from kit.clean.session import features_of_table
from kit.data.duplicates import hashes, shrink
from kit.data.scan import scan_images
from kit.features.neighbours import nearest

CHANGES = {
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "cropped": lambda image: image.crop((6, 4, 122, 120)),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


def test_changed_copies_are_found_and_no_other_pair(drawings, of_package, tmp_path):
    originals = sorted((drawings / "cat").glob("[A-Z]*.jpg"))[:18]
    for number, path in enumerate(originals):
        (tmp_path / f"{number:02}.png").write_bytes(path.read_bytes())
    for number, (name, change) in enumerate(CHANGES.items()):
        with Image.open(originals[number]) as image:
            change(image).save(tmp_path / f"{number:02} {name}.png")
    table = data.survey(tmp_path, label=lambda path: "cat")
    scan = scan_images(table["path"].tolist())
    found = find_copies(nearest(features_of_table(table, of_package), 5), scan.hashes, scan.pictures)
    pairs = {tuple(Path(table["path"][row]).stem for row in pair[:2]) for pair in found}
    assert pairs == {(f"{number:02} {name}", f"{number:02}") for number, name in enumerate(CHANGES)}


def test_images_with_different_features_are_not_compared():
    images = [draw_shape("circle", 1), ImageOps.mirror(draw_shape("circle", 1))]
    pictures = np.stack([shrink(image) for image in images])
    assert find_copies(nearest(np.eye(2, 8, dtype=np.float32), 1), hashes(pictures), pictures) == []


@pytest.mark.parametrize("count", [0, 1])
def test_no_pair_in_fewer_than_two_images(count):
    pictures = np.zeros((count, 32, 32, 3), np.uint8)
    assert find_copies(nearest(np.zeros((count, 4), np.float32), 0), hashes(pictures), pictures) == []
