"""From folders, CSV files and DataFrames to one table: nothing lost, nothing silently replaced."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import draw_shape, write_shapes

from kit import data
from kit.errors import DataError


def test_a_folder_of_class_folders_becomes_a_table(shapes):
    table = data.table(shapes)
    assert list(table.columns) == ["path", "label", "split", "group", "sha256"]
    assert table["label"].value_counts().to_dict() == {"circle": 8, "square": 8, "triangle": 8}
    assert set(table["split"]) == {"train", "valid"}
    assert all(len(digest) == 64 for digest in table["sha256"])
    assert table["path"].is_monotonic_increasing


def test_nested_train_val_and_test_folders_are_kept_as_given(tmp_path):
    for number, side in enumerate(("train", "val", "test")):
        write_shapes(tmp_path / side, count=3, shapes=("circle", "square"), first=10 * number)
    table = data.table(tmp_path)
    assert table["split"].value_counts().to_dict() == {"train": 6, "valid": 6, "test": 6}
    assert set(table["label"]) == {"circle", "square"}


def test_with_train_and_test_folders_validation_comes_out_of_training(tmp_path):
    for number, side in enumerate(("train", "test")):
        write_shapes(tmp_path / side, count=5, shapes=("circle", "square"), first=10 * number)
    assert data.table(tmp_path)["split"].value_counts().to_dict() == {"train": 8, "test": 10 - 0, "valid": 2}


def test_images_beside_the_class_folders_are_an_error_that_names_them(tmp_path):
    write_shapes(tmp_path, count=2)
    draw_shape("circle", 1).save(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"1 images are in .* itself, not in a class folder: stray.png"):
        data.table(tmp_path)


def test_names_that_a_pattern_misses_are_counted_and_named(tmp_path):
    for seed, name in enumerate(("rose_1", "rose_2", "tulip_1", "photo", "image")):
        draw_shape("circle", seed).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"2 of 5 files have no label: image.png does not match .*, photo.png does not"):
        data.table(tmp_path, label=r"^(.*)_\d+")


def test_broken_and_foreign_files_are_named_and_left_out_and_the_rest_goes_on(tmp_path):
    write_shapes(tmp_path)
    (tmp_path / "circle" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (tmp_path / "square" / "empty.png").touch()
    (tmp_path / "square" / "notes.txt").write_text("notes")
    table = data.table(tmp_path)
    left_out = {Path(entry["path"]).name: entry["reason"] for entry in table.attrs["left_out"]}
    assert len(table) == 24
    assert left_out["notes.txt"] == "not an image by its name"
    assert left_out["empty.png"] == "the file is empty"
    assert "broken.jpg" in left_out


def test_more_than_a_fifth_broken_stops_with_their_names(tmp_path):
    write_shapes(tmp_path, count=2)
    for number in range(3):
        (tmp_path / "circle" / f"broken{number}.png").write_text("text")
    with pytest.raises(DataError, match="3 of 9 images cannot be opened: broken0.png: not an image of the formats"):
        data.table(tmp_path)


def test_a_csv_says_labels_splits_and_groups(shapes, tmp_path):
    files = sorted(shapes.rglob("*.png"))
    rows = [(f.relative_to(shapes), f.parent.name, "valid" if f.stem == "00" else "", f.stem) for f in files]
    pd.DataFrame(rows, columns=["image", "class", "split", "group"]).to_csv(tmp_path / "labels.csv", index=False)
    table = data.table(shapes, labels=tmp_path / "labels.csv")
    assert table["split"].value_counts().to_dict() == {"train": 21, "valid": 3}
    assert sorted(set(table["group"])) == [f"{number:02}" for number in range(8)]


def csv_of(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("url,label\nx,a\n", "has no column 'path'; it has: url, label"),
        ("path,label\nnothing.png,a\n", "1 of 1 files of .* are not there: .*nothing.png"),
        ("path,label\ncircle/00.png,\n", "1 rows of .* have no label: .*00.png"),
        ("path,label\ncircle/00.png,a\ncircle/00.png,b\n", "names files more than once: .*00.png"),
        ("path,label,split\ncircle/00.png,a,no test\n", "has unknown splits: no test"),
        ("", "labels.csv is empty"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_the_reason(shapes, tmp_path, text, problem):
    with pytest.raises(DataError, match=problem):
        data.table(shapes, labels=csv_of(tmp_path, text))


def test_a_dataframe_is_a_source_too(shapes):
    frame = pd.DataFrame({"path": [str(p) for p in shapes.rglob("*.png")]})
    frame["label"] = [Path(path).parent.name for path in frame["path"]]
    assert len(data.table(frame)) == 24
    with pytest.raises(DataError, match=f"the DataFrame names files more than once: {frame['path'][0]}"):
        data.table(pd.concat([frame, frame.head(1)]))
    with pytest.raises(DataError, match="the DataFrame has unknown splits: later"):
        data.table(frame.assign(split="later"))


def test_a_missing_folder_is_an_error_with_a_hint(tmp_path):
    with pytest.raises(DataError, match='smaple is not there. Did you mean "sample"'):
        data.table("smaple")
    with pytest.raises(DataError, match="is a file, not a folder"):
        (tmp_path / "file").touch()
        data.table(tmp_path / "file")
    with pytest.raises(DataError, match="holds no images"):
        (tmp_path / "empty").mkdir()
        data.table(tmp_path / "empty")


def test_copies_never_straddle_the_split(shapes, tmp_path):
    folder = tmp_path / "copies"
    shutil.copytree(shapes, folder)
    for path in sorted(shapes.rglob("*.png")):
        shutil.copy(path, folder / path.parent.name / f"copy_{path.name}")
    table = data.table(folder)
    assert table["group"].nunique() == 24
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert table["split"].value_counts()["valid"] in range(6, 13)


def test_a_copy_of_a_given_validation_image_is_left_out_of_training(tmp_path):
    write_shapes(tmp_path / "train", count=4, shapes=("circle", "square"))
    write_shapes(tmp_path / "valid", count=2, shapes=("circle", "square"), first=50)
    shutil.copy(tmp_path / "valid" / "circle" / "50.png", tmp_path / "train" / "circle" / "again.png")
    table = data.table(tmp_path)
    assert table[table["split"] == "out"]["path"].tolist() == [str(tmp_path / "train" / "circle" / "again.png")]
    assert "left out 1 (copies of held-out images): again.png" in [f.text for f in data.check(table).findings]


def test_a_linked_folder_is_not_followed_and_is_named(shapes, tmp_path):
    write_shapes(tmp_path / "data", shapes=("circle", "square"))
    (tmp_path / "data" / "triangle").symlink_to(shapes / "triangle")
    table = data.table(tmp_path / "data")
    assert set(table["label"]) == {"circle", "square"}
    assert table.attrs["left_out"] == [
        {"path": str(tmp_path / "data" / "triangle"), "reason": "a link to a folder, not followed"}
    ]


def test_paths_are_absolute_wherever_one_stands(shapes, monkeypatch):
    monkeypatch.chdir(shapes)
    table = data.table(".", label=r"/([^/]+)/\d+\.png$")
    assert table["path"].tolist() == data.table(shapes)["path"].tolist()
    assert set(table["label"]) == {"circle", "square", "triangle"}


def test_the_column_named_path_and_label_win_over_their_like(shapes, tmp_path):
    csv = csv_of(tmp_path, "name,path,class,label\nx,circle/00.png,wrong,a\ny,square/00.png,wrong,b\n")
    assert data.table(shapes, labels=csv)["label"].tolist() == ["a", "b"]


def test_a_class_may_be_called_test(tmp_path):
    write_shapes(tmp_path, shapes=("circle", "square"))
    (tmp_path / "square").rename(tmp_path / "test")
    table = data.table(tmp_path)
    assert set(table["label"]) == {"circle", "test"}
    assert set(table["split"]) == {"train", "valid"}


def test_the_table_tells_which_rules_were_followed(shapes, tmp_path):
    table = data.table(shapes)
    assert (table.attrs["split"], table.attrs["label"]) == ("stratified", "folder")
    csv = csv_of(tmp_path, "path,label,split\ncircle/00.png,a,train\nsquare/00.png,b,valid\n")
    table = data.table(shapes, labels=csv)
    assert (table.attrs["split"], table.attrs["label"]) == ("given", "table")


@pytest.mark.parametrize(("old", "new"), [("told", "table_args"), ("travel", "trace_sample")])
def test_a_renamed_function_still_works_and_warns(old, new):
    with pytest.warns(DeprecationWarning, match=f"kit.data.{old} is now kit.data.{new}"):
        assert getattr(data, old) is getattr(data, new)
