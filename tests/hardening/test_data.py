"""Odd folders and label files: tests carry their row's number. What is good is trained on, the rest is named."""

import io
import json
import os
import shutil

import pandas as pd
import pytest
from conftest import draw_shape, write_shapes
from PIL import Image
from typer.testing import CliRunner

import kit
from kit import data
from kit.cli.main import application
from kit.errors import DataError


def findings(table, severity):
    return [finding.text for finding in data.check(table).findings if finding.severity == severity]


def left_out(table) -> dict[str, str]:
    return {os.path.basename(entry["path"]): entry["reason"] for entry in table.attrs["left_out"]}  # noqa: PTH119


@pytest.fixture
def messy(tmp_path):
    """24 good images of 3 classes, and what else lies in people's folders."""
    folder = write_shapes(tmp_path / "photos")
    circle = folder / "circle"
    (circle / "empty.jpg").write_bytes(b"")
    (circle / "text.png").write_text("no image")
    (circle / "cut.png").write_bytes((circle / "00.png").read_bytes()[:900])
    (circle / "._00.png").write_bytes(b"Mac")
    (circle / ".DS_Store").write_bytes(b"Mac")
    (circle / "Thumbs.db").write_bytes(b"Windows")
    (circle / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    gif = io.BytesIO()
    draw_shape("circle", 77).save(gif, "GIF")
    (circle / "named.jpg").write_bytes(gif.getvalue())
    return folder


def test_31_broken_files_are_named_with_their_reason_and_the_rest_is_kept(messy):
    table = data.table(messy)
    reasons = left_out(table)
    assert reasons["empty.jpg"] == "the file is empty"
    assert reasons["text.png"].startswith("not an image of the formats")
    assert "cut off" in reasons["cut.png"] or "cannot be decoded" in reasons["cut.png"]
    assert reasons["gone.jpg"].startswith("cannot be read")
    assert reasons["Thumbs.db"] == "not an image by its name"
    assert set(reasons) == {"empty.jpg", "text.png", "cut.png", "gone.jpg", "Thumbs.db"}
    assert len(table) == 25
    assert "named.jpg" in {os.path.basename(path) for path in table["path"]}  # noqa: PTH119
    warnings = " | ".join(findings(table, "warning"))
    assert all(name in warnings for name in ("empty.jpg", "text.png", "cut.png", "gone.jpg"))


def test_31_the_rest_is_trained_on_and_recipe_json_lists_what_was_left_out(messy, tiny, tmp_path):
    run = kit.fine_tune(messy, tiny, out=tmp_path / "run", onnx=False)
    assert len(run.table) == 25
    said = json.loads((run.folder / "recipe.json").read_text())["chosen"]["left_out"]
    assert len(said) == 5


def test_31_where_more_than_a_fifth_is_broken_it_stops_and_names_them(messy):
    for number in range(7):
        (messy / "square" / f"bad{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"11 of 36 images cannot be opened: .*the file is empty") as error:
        data.table(messy)
    assert "20%" in error.value.fix


@pytest.fixture
def linked(tmp_path):
    """A link to an image of the folder itself, and one to an image elsewhere; and a linked folder."""
    folder = write_shapes(tmp_path / "photos")
    elsewhere = write_shapes(tmp_path / "elsewhere", count=2, first=50)
    (folder / "circle" / "inside.png").symlink_to(folder / "circle" / "00.png")
    (folder / "circle" / "outside.png").symlink_to(elsewhere / "circle" / "50.png")
    (folder / "more").symlink_to(elsewhere)
    return folder


def test_32_a_link_that_leads_out_is_not_followed_and_is_named(linked):
    table = data.table(linked)
    assert len(table) == 25
    assert left_out(table) == {
        "outside.png": "a link that leads out of the folder, not followed",
        "more": "a link to a folder, not followed",
    }
    assert any("outside.png" in text for text in findings(table, "warning"))


def test_32_asked_for_it_is_followed(linked):
    assert len(data.table(linked, follow_links=True)) == 26


def test_32_a_folder_of_links_alone_says_so(linked, tmp_path):
    links = tmp_path / "links"
    (links / "a").mkdir(parents=True)
    (links / "a" / "1.png").symlink_to(linked / "circle" / "00.png")
    with pytest.raises(DataError, match=r"holds no images, and 1 other files \(a link that leads out of the folder"):
        data.table(links)


def test_33_an_empty_class_folder_is_named(tmp_path):
    folder = write_shapes(tmp_path)
    (folder / "hexagon").mkdir()
    assert "classes without a usable image: hexagon (an empty folder)" in findings(data.table(folder), "warning")


def test_33_one_class_and_one_image_are_errors(tmp_path):
    one = data.table(write_shapes(tmp_path / "one", shapes=("circle",)))
    assert any("one class only (circle)" in text for text in findings(one, "error"))
    single = data.table(write_shapes(tmp_path / "single", count=1, shapes=("circle",)))
    assert any("no validation image" in text for text in findings(single, "error"))
    with pytest.raises(DataError, match="one class only"):
        kit.fine_tune(tmp_path / "one", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_33_a_class_that_validation_lacks_is_a_warning(tmp_path):
    write_shapes(tmp_path / "train", count=4)
    write_shapes(tmp_path / "valid", count=3, first=20, shapes=("circle", "square"))
    warnings = findings(data.table(tmp_path), "warning")
    assert "class 'triangle' has no validation image: its errors are not measured" in warnings


def test_33_a_class_that_training_lacks_is_an_error(tmp_path):
    write_shapes(tmp_path / "train", count=4, shapes=("circle", "square"))
    write_shapes(tmp_path / "valid", count=3, first=20)
    assert "class 'triangle' has no training image" in findings(data.table(tmp_path), "error")


def test_33_classes_that_differ_in_upper_and_lower_case_are_a_warning(tmp_path):
    folder = write_shapes(tmp_path)
    (folder / "Circle").mkdir()
    for number in range(4):
        draw_shape("circle", 90 + number).save(folder / "Circle" / f"{number}.png")
    warnings = findings(data.table(folder), "warning")
    assert "class 'Circle' differs from another only in upper and lower case" in warnings


def test_34_a_pattern_that_misses_names_counts_them_and_can_skip_them(tmp_path):
    folder = write_shapes(tmp_path)
    for number in range(7):
        (folder / "circle" / f"0{number}.png").rename(folder / "circle" / f"x{number}.png")
    with pytest.raises(DataError, match=r"^7 of 24 files have no label: x0.png .*x4.png .*, \.\.\.") as error:
        data.table(folder, label="^([0-9])")
    assert "--unlabelled skip" in error.value.fix
    table = data.table(folder, label="^([0-9])", unlabelled="skip")
    assert len(table) == 17
    assert set(left_out(table).values()) == {"no label"}


def test_34_where_no_name_fits_skipping_is_no_help(tmp_path):
    with pytest.raises(DataError, match="24 of 24 files have no label"):
        data.table(write_shapes(tmp_path), label="^(z)", unlabelled="skip")


@pytest.fixture
def csv(tmp_path):
    """A function that writes a label file of 24 good rows, and the given further ones."""
    folder = write_shapes(tmp_path / "photos")
    rows = [(str(path.relative_to(folder)), path.parent.name) for path in sorted(folder.rglob("*.png"))]

    def write(*more, columns=("path", "label"), encoding="utf-8"):
        pd.DataFrame([*rows, *more], columns=columns).to_csv(tmp_path / "labels.csv", index=False, encoding=encoding)
        return {"source": folder, "labels": tmp_path / "labels.csv"}

    return write


def test_34_a_csv_with_missing_files_counts_them_and_can_skip_them(csv):
    given = csv(*[(f"none{number}.png", "circle") for number in range(6)])
    with pytest.raises(DataError, match=r"6 of 30 files of .*labels.csv are not there: .*none4.png, \.\.\."):
        data.table(**given)
    table = data.table(**given, unlabelled="skip")
    assert len(table) == 24
    assert len(left_out(table)) == 6


def test_34_a_csv_with_empty_labels_counts_them_and_can_skip_them(csv, tmp_path):
    draw_shape("circle", 99).save(tmp_path / "photos" / "new.png")
    given = csv(("new.png", float("nan")))
    with pytest.raises(DataError, match=r"1 of 25 rows of .*labels.csv have no label: .*new.png"):
        data.table(**given)
    assert left_out(data.table(**given, unlabelled="skip")) == {"new.png": "no label"}


def test_34_a_csv_that_names_a_file_twice_is_refused(csv):
    with pytest.raises(DataError, match=r"names files more than once: .*circle/00.png"):
        data.table(**csv(("circle/00.png", "square")))


def test_34_a_csv_with_other_columns_names_them(csv):
    with pytest.raises(DataError, match="has no column 'label'; it has: path, what") as error:
        data.table(**csv(columns=("path", "what")))
    assert "name a column one of label, labels, class, " in error.value.fix


def test_34_a_csv_in_another_encoding_says_so_and_a_byte_order_mark_is_no_trouble(csv, tmp_path):
    draw_shape("circle", 99).save(tmp_path / "photos" / "new.png")
    with pytest.raises(DataError, match=r"labels.csv cannot be read as CSV: it is not UTF-8 \(byte \d+\)"):
        data.table(**csv(("new.png", "Gänse"), encoding="latin-1"))
    table = data.table(**csv(("new.png", "Gänse"), encoding="utf-8-sig"))
    assert "Gänse" in set(table["label"])


def test_34_what_to_do_with_unlabelled_files_is_error_or_skip(shapes):
    with pytest.raises(DataError, match="unlabelled='drop' is not known") as error:
        data.table(shapes, unlabelled="drop")
    assert error.value.fix == "one of: error, skip"


def test_31_an_image_that_is_turned_grey_or_transparent_is_no_trouble(tmp_path):
    folder = write_shapes(tmp_path)
    Image.new("LA", (40, 40), (90, 100)).save(folder / "circle" / "grey.png")
    assert left_out(data.table(folder)) == {}


def test_33_a_class_without_usable_files_is_named_in_place_of_the_files(tmp_path):
    folder = write_shapes(tmp_path)
    for path in ("heron/1.webm", "heron/2.svg", "swan/1.jpg", "docs/more/read.me", "labels.csv"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("no image")
    warning, *_ = findings(data.table(folder), "warning")
    assert warning.startswith("classes without a usable image: heron (2 files: not an image by its name), swan (not an")
    assert "left out 2 (not an image by its name): labels.csv, read.me" in findings(data.table(folder), "note")


def test_33_a_class_that_would_lose_all_its_files_is_named_where_training_is_refused(tmp_path):
    folder = write_shapes(tmp_path)
    for path in (folder / "circle").iterdir():
        path.write_text("no image")
    with pytest.raises(DataError, match="8 of 24 images cannot be opened, among them all of circle: 00.png"):
        data.table(folder)


def test_43_images_beside_train_are_left_out_with_a_line(tmp_path):
    write_shapes(tmp_path / "Training", count=5, shapes=("circle", "square"))
    write_shapes(tmp_path / "Testing", count=3, shapes=("circle", "square"), first=10)
    write_shapes(tmp_path / "extra", count=2, shapes=("circle",), first=20)
    (tmp_path / "pred").mkdir()
    draw_shape("circle", 30).save(tmp_path / "pred" / "30.png")
    table = data.table(tmp_path)
    assert table["split"].value_counts().to_dict() == {"train": 8, "test": 6, "valid": 2}
    assert set(table["label"]) == {"circle", "square"}
    warnings, notes = findings(table, "warning"), findings(table, "note")
    assert "left out 2 (extra: beside Training, in no split): 20.png, 21.png" in warnings
    assert "left out 1 (pred: beside Training, in no split): 30.png" in warnings
    by_folders = "splits by folders: Testing (test), Training (train)"
    assert f"{by_folders}; the validation images are chosen from the training images" in notes


def test_43_a_class_that_is_named_like_a_split_and_the_level_of_the_label_are_notes(tmp_path):
    write_shapes(tmp_path / "pets", count=3, shapes=("circle", "square"))
    write_shapes(tmp_path / "cars", count=3, shapes=("triangle",))
    (tmp_path / "cars" / "triangle").rename(tmp_path / "cars" / "dev")
    table = data.table(tmp_path)
    notes = findings(table, "note")
    assert any(text.startswith("class 'dev' is named like a split") for text in notes)
    rule = f"/{tmp_path.name}/([^/]+)/"
    assert f"the label is the innermost folder, as in cars/dev; for the outermost: --label '{rule}'" in notes
    assert set(data.table(tmp_path, label=rule)["label"]) == {"pets", "cars"}


@pytest.fixture
def trained_here(run, tmp_path):
    """Class folders with a run, a copy of its bundle in a class, and a report of kit check beside them."""
    folder = write_shapes(tmp_path / "photos")
    shutil.copytree(run.folder, folder / "runs" / "first")
    shutil.copytree(run.bundle, folder / "circle" / "model")
    done = CliRunner().invoke(application(), ["check", str(folder), "--batch", "4", "--out", str(folder / "look")])
    assert done.exit_code == 0, done.output
    return folder


def test_44_output_of_kit_is_left_out_with_a_line(trained_here, run):
    table = data.table(trained_here)
    line = "left out 3 (written by kit: a run, a bundle, a report, a Space or a chart): model, look, first"
    assert table["label"].value_counts().to_dict() == {"circle": 8, "square": 8, "triangle": 8}
    assert line in findings(table, "note")
    for command in ("predict", "evaluate"):
        done = CliRunner().invoke(application(), [command, str(run.folder), str(trained_here)])
        assert (done.exit_code, line in done.stderr) == (0, True), done.output


def test_44_a_run_is_no_folder_of_images(run):
    with pytest.raises(DataError, match=r"holds no images, and 1 other files \(written by kit"):
        data.table(run.folder)


def test_44_what_a_command_writes_into_the_folder_of_images_is_no_class_and_no_image_of_it(tmp_path):
    folder = write_shapes(tmp_path)
    written = ["--out", str(folder / "look"), "--show", str(folder / "batch.png")]
    done = CliRunner().invoke(application(), ["check", str(folder), "--batch", "4", *written])
    assert (done.exit_code, "look (" in done.stdout) == (0, False), done.output
    assert set(left_out(data.table(folder))) == {"look", "batch.png"}
