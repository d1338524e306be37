"""Wrong labels of each task are found by features, and right ones are left alone."""

import numpy as np
import pytest

from kit.clean.label_issues import label_opinions

NAMES = ("ant", "bee", "cow")


def clouds(count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (3 count, 16) around three centres, and the number of each centre."""
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(3), count)
    return (rng.normal(size=(3, 16))[which] * 3 + rng.normal(size=(len(which), 16))).astype(np.float32), which


def test_wrong_classes_are_suspect_and_rank_first():
    features, which = clouds()
    labels = [NAMES[number] for number in which]
    labels[3], labels[50], labels[90] = "cow", "ant", "bee"
    found = label_opinions(labels, features, [""] * len(labels), "classification")
    assert set(np.flatnonzero(found.suspect)) == {3, 50, 90}
    assert set(np.argsort(found.quality)[:3]) == {3, 50, 90}
    assert [found.suggestion[row] for row in (3, 50, 90)] == ["ant", "bee", "cow"]
    assert "looks like ant" in found.reason[3]
    assert "is labelled cow" in found.reason[3]


def test_right_labels_are_not_suspect():
    features, which = clouds()
    found = label_opinions([NAMES[number] for number in which], features, [""] * len(which), "classification")
    assert not found.suspect.any()


def test_a_class_of_one_image_is_nothing_to_warn_about(recwarn):
    features, which = clouds()
    label_opinions(["owl", *[NAMES[number] for number in which[1:]]], features, [""] * len(which), "classification")
    assert not recwarn.list


def test_missing_and_wrong_classes_of_several():
    features, which = clouds()
    labels = ["ant" if number == 0 else "bee;cow" if number == 1 else "" for number in which]
    labels[2], labels[45] = "", "ant;bee;cow"
    found = label_opinions(labels, features, [""] * len(labels), "multilabel")
    assert set(np.flatnonzero(found.suspect)) == {2, 45}
    assert (found.suggestion[2], found.suggestion[45]) == ("ant", "bee;cow")
    assert "probably also has ant" in found.reason[2]
    assert "probably has no ant" in found.reason[45]


def test_numbers_that_do_not_fit():
    features, _ = clouds()
    numbers = features @ np.arange(16) / 10
    labels = [str(round(float(number), 3)) for number in numbers]
    labels[7] = "99.5"
    found = label_opinions(labels, features, [""] * len(labels), "regression")
    assert np.flatnonzero(found.suspect).tolist() == [7]
    assert abs(float(found.suggestion[7]) - numbers[7]) < 5
    assert "is labelled 99.5" in found.reason[7]


@pytest.mark.parametrize("labels", [["cat"], ["cat", "dog"], ["cat"] * 5])
def test_too_few_images_or_classes_give_no_opinion(labels):
    found = label_opinions(labels, np.zeros((len(labels), 4), np.float32), [""] * len(labels), "classification")
    assert not found.suspect.any()
    assert len(found.suggestion) == len(found.reason) == len(labels)
