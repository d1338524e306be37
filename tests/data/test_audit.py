"""The look before training: what it says, and when it forbids."""

import pandas as pd
import pytest

from kit import data


def table(labels, splits=None, groups=None, left_out=()) -> pd.DataFrame:
    n = len(labels)
    made = pd.DataFrame({"path": [f"{i}.jpg" for i in range(n)], "label": labels})
    made["split"] = splits or ["valid" if i % 5 == 0 else "train" for i in range(n)]
    made["group"], made["sha256"] = groups or [""] * n, ""
    made.attrs["left_out"] = list(left_out)
    return made


def texts(report, severity):
    return [finding.text for finding in report.findings if finding.severity == severity]


def test_a_good_table_has_nothing_to_find_and_its_counts_are_told():
    report = data.check(table(["a", "b"] * 200))
    assert report.findings == []
    assert report.lines()[0] == "400 images of 2 classes: 320 train, 80 valid"


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (table(["a"] * 100), "one class only (a)"),
        (table(["a", "b"] * 20, splits=["train"] * 40), "no validation image"),
        (table(["a", "b"] * 40, splits=["train", "valid"] * 40), "class 'b' has no training image"),
    ],
)
def test_what_training_could_not_do_is_an_error(made, error):
    assert any(error in text for text in data.check(made).errors)


def test_weak_spots_are_warnings():
    labels = ["cat"] * 150 + ["Cat"] * 100 + ["rare"] * 4
    splits = ["valid" if i % 4 == 0 else "train" for i in range(250)] + ["train"] * 4
    found = " | ".join(texts(data.check(table(labels, splits)), "warning"))
    assert "class 'rare' has no validation image: its errors are not measured" in found
    assert "imbalance: 150 of 'cat' against 4 of 'rare'" in found
    assert "class 'Cat' differs from another only in upper and lower case" in found


def test_a_validation_set_too_small_to_tell_says_so():
    assert any(
        "12 validation images are too few" in text for text in texts(data.check(table(["a", "b"] * 30)), "warning")
    )


def test_duplicates_are_counted_and_those_with_two_labels_named():
    groups = ["duplicates 1"] * 2 + ["duplicates 2"] * 3 + [""] * 195
    report = data.check(table(["a", "b"] * 100, groups=groups))
    assert "2 groups of duplicates (5 images), each kept on one side of the split" in texts(report, "note")
    assert any(
        "2 groups of duplicates have several labels: 0.jpg (a) = 1.jpg (b)" in t for t in texts(report, "warning")
    )


def test_left_out_files_are_named_by_reason():
    left_out = [{"path": f"x/{n}.jpg", "reason": "the file is empty"} for n in range(7)]
    report = data.check(table(["a", "b"] * 100, left_out=left_out))
    assert texts(report, "warning") == ["left out 7 (the file is empty): 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ..."]
    assert report.to_json()["left_out"] == left_out


def test_fewer_training_images_than_a_batch_is_an_error_with_the_batch_that_fits():
    assert data.check(table(["a", "b"] * 25), batch=64).errors == [
        "40 training images do not fill one batch of 64: say --batch 10"
    ]


def test_one_class_from_several_folders_is_a_warning():
    made = table(["black", "white"] * 100)
    made["path"] = [f"{('cat', 'dog')[i // 100]}/{label}/{i}.jpg" for i, label in enumerate(made["label"])]
    made.attrs["label"] = "folder"
    assert "class 'black' is made up of 2 folders of that name: cat/black, dog/black" in texts(
        data.check(made), "warning"
    )


def test_few_steps_an_epoch_are_a_warning_with_a_smaller_batch():
    assert texts(data.check(table(["a", "b"] * 200), batch=64), "warning") == [
        "only 5 steps an epoch with batches of 64: try --batch 16, and more --epochs"
    ]
    assert data.check(table(["a", "b"] * 200), batch=16).findings == []


def test_images_in_no_split_are_named_with_the_true_reason():
    groups = [*["duplicates 1"] * 2, *["anna"] * 2, *["ben"] * 2, *[""] * 194]
    splits = [*["out", "valid"] * 3, "out", *["train", "train", "valid"] * 64, "train"]
    found = texts(data.check(table(["a"] * 2 + ["a", "b"] * 99, splits, groups)), "warning")
    assert found == [
        "left out 1 (copies of held-out images): 0.jpg",
        "left out 2 (other images of their group are held out; groups: anna, ben): 2.jpg, 4.jpg",
        "left out 1 (the table says so): 6.jpg",
    ]


def test_a_class_that_lost_all_its_files_is_named_in_place_of_the_files():
    left_out = [{"path": f"x/{n}.jpg", "reason": "the file is empty", "label": "heron"} for n in range(7)]
    left_out += [{"path": "y/7.jpg", "reason": "the file is empty", "label": "a"}]
    found = texts(data.check(table(["a", "b"] * 100, left_out=left_out)), "warning")
    assert found == [
        "classes without a usable image: heron (7 files: the file is empty)",
        "left out 1 (the file is empty): 7.jpg",
    ]
