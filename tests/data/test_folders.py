"""Which folders are splits, which are classes, and what is left out beside them."""

from collections import Counter
from pathlib import Path

import pytest

from kit.data.folders import split_name, splits_by_folder
from kit.data.labels import parent_folder, pattern
from kit.errors import DataError

FOLDER = Path("/photos")


def paths(layout: str) -> list[Path]:
    """Two images in each folder of `layout`, or the image itself where it names one."""
    names = [[name] if name.endswith(".png") else [f"{name}/1.png", f"{name}/2.png"] for name in layout.split()]
    return sorted(FOLDER / name for group in names for name in group)


def found(layout: str, rule=parent_folder) -> tuple[dict[str, str], set[str]]:
    """The split of each folder of images, and the folders that are left out."""
    given = splits_by_folder(paths(layout), FOLDER, rule)
    sides = {str(path.parent.relative_to(FOLDER)): split for path, split in given.splits.items()}
    return sides, {str(path.parent.relative_to(FOLDER)) for path in given.left_out}


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Train TRAIN training train_set trainset training_set TrainImages train-images train2017 trainval",
        ),
        ("valid", "valid val Val validation val_set valset dev Dev dev_set development validation_data val2017"),
        (
            "test",
            "test TEST Testing tests test_set testset test1 eval evaluation holdout hold-out held_out images_test",
        ),
    ],
)
def test_the_usual_names_of_splits_are_known_in_any_spelling(split, names):
    assert {name: split_name(name) for name in names.split()} == dict.fromkeys(names.split(), (split, ""))


@pytest.mark.parametrize(
    "name", ["trains", "restraint", "devil", "valley", "contest", "latest", "evaluator", "cat", ""]
)
def test_a_word_that_only_holds_such_a_name_is_no_split(name):
    assert split_name(name)[0] == ""


def test_what_else_a_name_says_is_told_apart():
    assert split_name("seg_train") == ("train", "seg")
    assert split_name("train_test_split")[0] == ""


@pytest.mark.parametrize(
    ("layout", "sides"),
    [
        (
            "Training/cat Training/dog Testing/cat",
            {"Training/cat": "train", "Training/dog": "train", "Testing/cat": "test"},
        ),
        ("train/cat valid/cat dev/cat", {"train/cat": "train", "valid/cat": "valid", "dev/cat": "valid"}),
        ("data/train/cat data/test/cat", {"data/train/cat": "train", "data/test/cat": "test"}),
        (
            "asl_train/asl_train/A asl_test/asl_test/A",
            {"asl_train/asl_train/A": "train", "asl_test/asl_test/A": "test"},
        ),
        ("cat dog test/cat", {"test/cat": "test"}),
        (
            "data/train/cat data/val/cat test/cat",
            {"data/train/cat": "train", "data/val/cat": "valid", "test/cat": "test"},
        ),
        ("a/train/x a/test/x b/train/x", {"a/train/x": "train", "a/test/x": "test", "b/train/x": "train"}),
        ("train/train train/plane test/train", {"train/train": "train", "train/plane": "train", "test/train": "test"}),
    ],
)
def test_folders_with_class_folders_are_splits(layout, sides):
    assert found(layout) == (sides, set())


@pytest.mark.parametrize(
    "layout",
    ["cat dog test", "cat dev", "train plane boat", "steam_train/a bus/b", "people/dev people/ann", "train_a/x b"],
)
def test_a_class_may_have_the_name_of_a_split(layout):
    assert found(layout) == ({}, set())


@pytest.mark.parametrize(
    ("layout", "left_out"),
    [
        ("train/cat train/dog test", {"test"}),
        ("train/cat train/dog val", {"val"}),
        (
            "seg_train/seg_train/cat seg_train/seg_train/dog seg_test/seg_test/cat seg_pred/seg_pred",
            {"seg_pred/seg_pred"},
        ),
        ("train/cat train/dog extra/cat images backup/train_old/cat", {"extra/cat", "images", "backup/train_old/cat"}),
        ("data/train/cat data/train/dog data/test/cat docs", {"docs"}),
        ("data/train/cat data/train/dog test/test", {"test/test"}),
        ("train/cat train/dog val/cat xray/train/cat xray/val/cat", {"xray/train/cat", "xray/val/cat"}),
        ("data/train/cat data/train/dog data/unlabelled docs/figures", {"data/unlabelled", "docs/figures"}),
    ],
)
def test_what_lies_beside_train_is_left_out(layout, left_out):
    sides, others = found(layout)
    assert others == left_out
    assert set(sides).isdisjoint(others)
    assert set(sides) | others == {str(path.parent.relative_to(FOLDER)) for path in paths(layout)}


def test_the_reason_names_the_folder():
    given = splits_by_folder(paths("train/cat train/dog test extra/cat"), FOLDER, parent_folder)
    assert Counter(given.left_out.values()) == {
        "in test itself, not in a class folder": 2,
        "extra: beside train, in no split": 2,
    }


@pytest.mark.parametrize(
    "layout",
    [
        "train/cat train/dog valid/cat train/x.png",
        "train/cat train/dog valid/cat valid/x.png",
        "train/train/cat train/train/dog train/train/x.png",
        "train/cat train/dog x.png",
        "cat dog x.png",
        "data/cat data/dog data/x.png",
    ],
)
def test_an_image_beside_class_folders_is_an_error_that_names_it(layout):
    with pytest.raises(DataError, match=r"1 images are in .* itself, not in a class folder: x.png"):
        found(layout)


@pytest.mark.parametrize("layout", ["train test", "train test1", "trainA trainB testA", "cat/train cat/test dog/train"])
def test_splits_without_class_folders_are_an_error_with_the_label_rule_as_fix(layout):
    with pytest.raises(DataError, match=r"not in a class folder") as error:
        found(layout)
    assert "--label" in error.value.fix


def test_with_labels_from_names_images_may_lie_in_the_splits_themselves():
    rule = pattern(r"([0-9])\.png$")
    assert found("train test", rule) == ({"train": "train", "test": "test"}, set())
    assert found("train test extra x_1.png", rule) == ({"train": "train", "test": "test"}, {"extra", "."})
    assert found("cat/train cat/test", rule)[0] == {"cat/train": "train", "cat/test": "test"}


def test_with_the_folder_as_label_by_a_pattern_a_class_may_have_the_name_of_a_split():
    assert found("train plane test", pattern("/([^/]+)/[^/]+$")) == ({}, set())


def test_class_folders_in_other_folders_are_noted_with_the_folder_that_holds_them_all():
    def nested(layout):
        return splits_by_folder(paths(layout), FOLDER, parent_folder).nested

    assert nested("cat/indoor dog/outdoor") == {FOLDER: FOLDER / "cat" / "indoor"}
    assert nested("train/pets/cat train/cars/vw") == {FOLDER / "train": FOLDER / "train" / "cars" / "vw"}
    assert nested("cat dog") == nested("animals/cat animals/dog") == nested("train/train/cat train/train/dog") == {}
