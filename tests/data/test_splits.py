"""Splits: from the seed, stratified or exactly fastai's, and never through a group."""

import numpy as np
import pandas as pd
import pytest
from fastai.vision.all import RandomSplitter

from kit.data.splits import assign_splits, folds, inner_folds, join_groups
from kit.errors import DataError


def rows(labels, groups=None, splits=None) -> pd.DataFrame:
    return pd.DataFrame({"label": labels, "group": groups or [""] * len(labels), "split": splits or [""] * len(labels)})


@pytest.mark.parametrize(("count", "valid", "seed"), [(370, 0.2, 42), (7390, 0.2, 42), (101, 0.33, 7)])
def test_random_takes_exactly_the_images_of_fastais_randomsplitter(count, valid, seed):
    ours = assign_splits(rows(["a", "b"] * (count // 2) + ["a"] * (count % 2)), "random", valid, seed)
    train, held = RandomSplitter(valid_pct=valid, seed=seed)(range(count))
    assert {index for index, split in enumerate(ours) if split == "valid"} == set(held)
    assert {index for index, split in enumerate(ours) if split == "train"} == set(train)


def test_a_random_split_leaves_the_random_state_of_others_alone():
    import torch

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assign_splits(rows(["a"] * 10), "random", 0.2, 42)
    assert torch.equal(before, torch.get_rng_state())


def test_stratified_takes_the_same_share_of_every_class():
    labels = ["a"] * 100 + ["b"] * 30 + ["c"] * 10
    splits = assign_splits(rows(labels), "stratified", 0.2, 1)
    held = pd.Series(labels)[np.array(splits) == "valid"].value_counts().to_dict()
    assert held == {"a": 20, "b": 6, "c": 2}


def test_the_seed_decides():
    labels = ["a"] * 50 + ["b"] * 50
    assert assign_splits(rows(labels), "stratified", 0.2, 1) == assign_splits(rows(labels), "stratified", 0.2, 1)
    assert assign_splits(rows(labels), "stratified", 0.2, 1) != assign_splits(rows(labels), "stratified", 0.2, 2)


@pytest.mark.parametrize("how", ["stratified", "random", "grouped"])
@pytest.mark.parametrize("seed", [1, 5, 42])
def test_no_group_is_divided_and_the_share_is_met(how, seed):
    table = rows(["a", "b"] * 60, [f"patient {index // 4}" for index in range(120)])
    table["split"] = assign_splits(table, how, 0.3, seed)
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert 0.2 < (table["split"] == "valid").mean() < 0.4


def test_a_random_split_moves_straddling_duplicates_to_training_and_no_other_image():
    plain = rows(["a", "b"] * 50)
    doubled = rows(["a", "b"] * 50, ["duplicates 1", "duplicates 1"] + [""] * 98)
    ours, theirs = (np.array(assign_splits(table, "random", 0.3, 3)) for table in (doubled, plain))
    assert (ours[2:] == theirs[2:]).all()
    assert ours[0] == ours[1]


def test_grouped_needs_groups():
    with pytest.raises(DataError, match="split is 'grouped', but there are no groups"):
        assign_splits(rows(["a", "b"]), "grouped", 0.5, 1)


def test_a_class_with_one_image_trains_and_does_not_validate():
    assert assign_splits(rows(["a"] * 10 + ["rare"]), "stratified", 0.2, 1)[-1] == "train"


def test_given_needs_validation_images():
    with pytest.raises(DataError, match="split is 'given', but no image is given for validation"):
        assign_splits(rows(["a", "b"]), "given", 0.2, 1)
    assert assign_splits(rows(["a", "b"], splits=["", "valid"]), "given", 0.2, 1) == ["train", "valid"]


def test_groups_and_duplicates_that_meet_become_one():
    assert join_groups(["x", "x", "y", "", "", ""], [[1, 2], [3, 4]]) == ["x", "x", "x", *["duplicates 2"] * 2, ""]


def test_a_group_counts_for_its_most_frequent_label():
    table = rows(["a"] * 8 + ["b"] * 6, ["mixed"] * 3 + [""] * 5 + ["mixed"] * 2 + [""] * 4)
    sides = inner_folds(table, 5, seed=1)
    assert len({*sides[:3], *sides[8:10]}) == 1
    assert sorted([*sides[3:8].tolist(), sides[0]]) == [0, 0, 1, 2, 3, 4]  # six units of a
    splits = np.array(assign_splits(table, "stratified", 0.25, 1))
    assert (splits[10:] == "valid").sum() == 1  # of four images of b that are alone


def test_the_share_of_a_class_is_met_by_groups_that_fit_and_by_one_in_any_case():
    table = rows(["a"] * 20, [f"g{index // 4}" for index in range(20)])
    for share, images in ((0.2, 4), (0.3, 4), (0.4, 8), (0.01, 4), (1.0, 16)):
        for seed in range(3):
            assert assign_splits(table, "stratified", share, seed).count("valid") == images
    assert assign_splits(rows(["a"] * 20), "stratified", 1.0, 1).count("train") == 1
    assert assign_splits(rows(["a"] * 20), "stratified", 0.01, 1).count("valid") == 1
    assert assign_splits(rows(["a"] * 2), "stratified", 0.01, 1).count("valid") == 1


def test_whole_groups_are_taken_until_the_share_is_reached_and_one_is_always_left():
    table = rows(["a", "b"] * 10, [f"g{index // 4}" for index in range(20)])
    for share, images in ((0.2, 4), (0.3, 8), (0.4, 8), (1.0, 16)):
        assert assign_splits(table, "grouped", share, 1).count("valid") == images


def test_inner_folds_hold_out_each_class_evenly_and_never_the_only_image_of_one():
    table = rows(["a"] * 11 + ["b"] * 4 + ["rare"] + ["c"] * 6, [""] * 16 + ["g"] * 4 + [""] * 2)
    sides = inner_folds(table, 5, seed=3)
    assert sides[15] == -1 and (np.delete(sides, 15) >= 0).all()
    assert np.bincount(sides[:11]).tolist() == [3, 2, 2, 2, 2]
    assert sorted(sides[11:15]) == [1, 2, 3, 4]  # begins one fold later, so that small classes do not meet in one
    assert len(set(sides[16:20])) == 1 and len(set(sides[16:])) == 3
    assert (inner_folds(table, 5, seed=3) == sides).all() and (inner_folds(table, 5, seed=4) != sides).any()


def test_given_images_of_tests_and_copies_of_them_are_never_chosen():
    splits = ["test", "out", "", "", "", "", "", ""]
    table = rows(["a"] * 8, ["x", "", "x", "", "", "", "", ""], splits)
    found = assign_splits(table, "random", 0.5, 1)
    assert found[:3] == ["test", "out", "out"] and set(found[3:]) == {"train", "valid"}
    table = rows(["a"] * 4, ["x", "x", "y", "y"], ["valid", "", "test", "valid"])
    assert assign_splits(table, "given", 0.5, 1) == ["valid", "out", "test", "out"]


def test_every_image_validates_once_over_the_folds_and_groups_stay_whole():
    table = rows(["a"] * 20 + ["b"] * 30, [f"g{index // 2}" for index in range(50)])
    sides = np.array(folds(table, 5, seed=3))
    assert ((sides == "valid").sum(0) == 1).all()
    for side in sides:
        assert (table.assign(side=side).groupby("group")["side"].nunique() == 1).all()
        assert pd.Series(table["label"])[side == "valid"].value_counts().to_dict() == {"a": 4, "b": 6}


def test_more_folds_than_images_of_a_class_is_an_error():
    with pytest.raises(DataError, match="a class has 3 images in 3 groups; 5 folds want one each"):
        folds(rows(["a"] * 3 + ["b"] * 9), 5, seed=1)


@pytest.mark.parametrize("how", ["stratified", "random", "grouped"])
def test_folds_of_every_kind_hold_each_image_once_and_keep_groups_whole(how):
    table = rows(["a"] * 20 + ["b"] * 30, [f"g{index // 5}" for index in range(40)] + [""] * 10)
    sides = np.array(folds(table, 4, seed=3, how=how))
    assert ((sides == "valid").sum(0) == 1).all()
    assert all(10 <= (side == "valid").sum() <= 15 for side in sides)
    for side in sides:
        grouped = table.assign(side=side)[table["group"] != ""].groupby("group")["side"]
        assert (grouped.nunique() == 1).all()


def test_large_groups_are_dealt_first_so_that_folds_have_equal_sizes():
    table = rows(["a"] * 8, ["g"] * 4 + [""] * 4)
    assert [side.count("valid") for side in folds(table, 2, seed=1)] == [4, 4]


def test_grouped_folds_do_not_ask_for_a_group_of_each_class_a_fold():
    table = rows(["a"] * 5 + ["b"] * 20, [f"g{index // 5}" for index in range(25)])
    with pytest.raises(DataError, match="a class has 5 images in 1 groups; 5 folds want one each"):
        folds(table, 5, seed=1)
    sides = np.array(folds(table, 5, seed=1, how="grouped"))
    assert (sides == "valid").sum(1).tolist() == [5] * 5


def test_grouped_folds_without_groups_and_more_folds_than_groups_are_errors():
    with pytest.raises(DataError, match="folds are 'grouped', but there are no groups"):
        folds(rows(["a", "b"] * 10), 2, seed=1, how="grouped")
    with pytest.raises(DataError, match="there are 4 images in 2 groups; 3 folds want one each"):
        folds(rows(["a", "b"] * 2, ["x", "x", "y", "y"]), 3, seed=1, how="grouped")


def test_other_seeds_make_other_random_folds():
    table = rows(["a", "b"] * 20)
    assert folds(table, 4, 1, "random") == folds(table, 4, 1, "random") != folds(table, 4, 2, "random")
