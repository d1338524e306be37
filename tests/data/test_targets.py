"""How labels are read: one class, several, or numbers; from CSV columns, delimiters and label rules."""

from pathlib import Path

import pandas as pd
import pytest

from kit import data
from kit.data.labels import Targets
from kit.errors import DataError
from kit.tasks.text import classes_of, join_classes, join_numbers, numbers_of, shown
from kit.tasks.training import training_of

MULTI, NUMBERS = Targets("multilabel"), Targets("regression")


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"path": [f"{place}.png" for place in range(len(next(iter(columns.values()))))]} | columns)


def test_several_classes_become_one_text_in_alphabetical_order_and_back():
    assert join_classes(["dog", "cat", "dog"]) == "cat;dog"
    assert classes_of("cat;dog") == ["cat", "dog"]
    assert classes_of("") == []


def test_numbers_become_a_text_and_back_exactly():
    numbers = [0.1 + 0.2, -3.0, 1e-12]
    assert numbers_of(join_numbers(numbers)) == numbers
    assert join_numbers([5.0]) == "5"


def test_numbers_for_people_have_four_digits():
    assert [shown(number) for number in (3.14159, 0.00012345, 1234567.8)] == ["3.142", "0.0001234", "1,234,568"]


@pytest.mark.parametrize(
    ("delimiter", "text", "expected"),
    [(";", "dog; cat;;", "cat;dog"), (" ", "haze  primary", "haze;primary"), ("|", "", ""), (", ", "b, a", "a;b")],
)
def test_the_delimiter_parts_the_classes(delimiter, text, expected):
    assert Targets("multilabel", delimiter).of_text(text) == expected


def test_a_class_that_holds_the_separator_is_refused():
    with pytest.raises(DataError, match=r"the class 'a;b c' holds a ';'") as error:
        Targets("multilabel", " ").of_text("a;b c")
    assert "name it without ';'" in error.value.fix


def test_columns_of_0_and_1_become_classes():
    targets = Targets("multilabel", columns=("cat", "dog"))
    table = frame(cat=["1", "0", "0", True], dog=["yes", "no", 1.0, "0"], other=[7, 7, 7, 7])
    assert targets.of_frame(table, "x.csv") == (["cat;dog", "", "dog", "cat"], ["cat", "dog"])


def test_a_cell_that_is_neither_0_nor_1_is_named_with_its_row():
    targets = Targets("multilabel", columns=("cat", "dog"))
    with pytest.raises(DataError, match=r"1 of 2 labels of x\.csv cannot be read: row 1: dog is 'maybe'") as error:
        targets.of_frame(frame(cat=["1", "0"], dog=["1", "maybe"]), "x.csv")
    assert "write 1 where the image has the class" in error.value.fix


def test_an_empty_cell_among_columns_of_0_and_1_is_no_label():
    targets = Targets("multilabel", columns=("cat", "dog"))
    assert targets.of_frame(frame(cat=["1", None], dog=["1", "1"]), "x.csv")[0] == ["cat;dog", None]


def test_no_class_at_all_is_a_label_of_its_own():
    assert MULTI.of_frame(frame(label=["a", "", None]), "x.csv") == (["a", "", ""], ["label"])


def test_numbers_come_from_one_or_several_columns():
    targets = Targets("regression", columns=("width", "height"))
    assert targets.of_frame(frame(width=[1, 2.5], height=["3e2", ""]), "x.csv") == (
        ["1;300", None],
        ["width", "height"],
    )
    assert NUMBERS.of_frame(frame(value=["4"]), "x.csv") == (["4"], ["value"])


@pytest.mark.parametrize("cell", ["3,5", "old", "NA", "inf"])
def test_what_is_no_number_is_named_with_its_row(cell):
    with pytest.raises(DataError, match=rf"row 1: '{cell}' is no number") as error:
        NUMBERS.of_frame(frame(label=["1", cell]), "x.csv")
    assert "write numbers with a point, like 41.5" in error.value.fix


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(DataError, match=r"""x\.csv has no column 'widht'\. Did you mean "width"\?""") as error:
        Targets("regression", columns=("widht",)).of_frame(frame(width=[1]), "x.csv")
    assert "one of: path, width" in error.value.fix


def test_columns_without_a_table_are_refused(shapes):
    with pytest.raises(DataError, match="there is no table with the columns width") as error:
        data.table(shapes, targets=Targets("regression", columns=("width",)))
    assert "--labels FILE" in error.value.fix


def test_a_label_rule_may_give_numbers(shapes):
    table = data.table(shapes, label=r"([0-9]+)\.png$", targets=NUMBERS)
    assert {numbers_of(label)[0] for label in table["label"]} == set(range(8))
    assert table.attrs["names"] == ["value"]
    assert table.attrs["task"] == "regression"


def test_a_label_rule_that_gives_no_number_names_the_file(shapes):
    with pytest.raises(DataError, match=r"24 of 24 files have no label: 00\.png: 'circle' is no number"):
        data.table(shapes, targets=NUMBERS)


def test_classes_are_counted_in_every_image_that_has_them():
    assert training_of("multilabel").count(["a;b", "b", ""]) == {"a": 1, "b": 2}
    assert training_of("classification").count(["a;b", "b"]) == {"a;b": 1, "b": 1}
    assert training_of("regression").count(["1", "2"]) == {}


def test_a_stratified_split_keeps_rare_classes_on_both_sides():
    labels = ["common"] * 90 + ["common;rare"] * 10
    names = training_of("multilabel").strata(labels)
    assert names == ["common"] * 90 + ["rare"] * 10


def test_strata_that_are_too_small_for_the_folds_are_joined():
    labels = ["a"] * 10 + ["b"] * 2 + ["c"] * 2 + [""]
    assert training_of("multilabel").strata(labels, 5) == ["a"] * 10 + [""] * 5
    assert training_of("multilabel").strata(labels[:13], 5) == ["a"] * 13


def test_numbers_are_stratified_by_their_order_low_and_high_alike(shapes):
    names = training_of("regression").strata([str(number) for number in range(100)])
    assert [names.count(name) for name in sorted(set(names))] == [10] * 10
    assert names == sorted(names)
    assert set(training_of("regression").strata(["5"] * 30)) == {"00"}


def write(folder: Path, rows: list[str], name: str = "labels.csv") -> Path:
    (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / name


def of_shapes(shapes: Path) -> list[str]:
    return sorted(path.relative_to(shapes).as_posix() for path in shapes.rglob("*.png"))


def test_the_validation_images_of_numbers_span_them(shapes, tmp_path):
    rows = [f"{path},{place}" for place, path in enumerate(of_shapes(shapes))]
    table = data.table(
        shapes, labels=write(tmp_path, ["path,size", *rows]), targets=Targets("regression", columns=("size",))
    )
    held = sorted(float(label) for label in table.loc[table["split"] == "valid", "label"])
    assert 3 <= len(held) <= 6
    assert held[0] < 12 <= held[-1]
    assert table.attrs["names"] == ["size"]


def found(shapes: Path, tmp_path: Path, head: str, cells: list[str], targets: Targets) -> data.check:
    rows = [f"{path},{cell}" for path, cell in zip(of_shapes(shapes), cells, strict=True)]
    return data.check(data.survey(shapes, labels=write(tmp_path, [head, *rows]), targets=targets), batch=4)


def test_check_counts_each_class_of_an_image(shapes, tmp_path):
    report = found(shapes, tmp_path, "path,label", ["a;b", "a", "b", ""] * 6, MULTI)
    assert {name: sum(sides.values()) for name, sides in report.classes.items()} == {"a": 12, "b": 12}
    assert sum(report.splits.values()) == 24
    assert report.lines()[0].startswith("24 images of 2 classes: ")
    assert "  note: 6 images have none of the classes" in report.lines()
    assert report.errors == []


def test_check_stops_at_a_class_that_every_image_has(shapes, tmp_path):
    report = found(shapes, tmp_path, "path,label", ["a;b", "a"] * 12, MULTI)
    assert report.errors == ["every image has the class 'a': there is nothing to learn of it"]


@pytest.mark.parametrize(
    ("cells", "hint"),
    [
        (['"a,b"', "c"] * 12, "no image has two classes; are they separated by ','? (--delimiter ',')"),
        (["a", "b"] * 12, "no image has two classes: one class each is --task classification"),
    ],
)
def test_check_wonders_where_no_image_has_two_classes(shapes, tmp_path, cells, hint):
    report = found(shapes, tmp_path, "path,label", cells, MULTI)
    assert hint in [finding.text for finding in report.findings if finding.severity == "warning"]


def test_check_wonders_whether_classes_made_of_others_are_several(shapes, tmp_path):
    report = found(shapes, tmp_path, "path,label", ['"a,b"', "a", "b"] * 8, Targets())
    text = "classes like 'a,b' are made of others: if an image can have several, say --task multilabel --delimiter ','"
    assert text in [finding.text for finding in report.findings]


def test_check_wonders_whether_many_numbers_are_classes(shapes, tmp_path):
    report = found(shapes, tmp_path, "path,label", [str(number) for number in range(24)], Targets())
    assert any("if they measure something, say --task regression" in finding.text for finding in report.findings)


def test_check_tells_what_numbers_there_are(shapes, tmp_path):
    cells = [f"{number},{number / 8}" for number in range(24)]
    targets = Targets("regression", columns=("age", "weight"))
    report = found(shapes, tmp_path, "path,age,weight", cells, targets)
    assert report.lines()[0].startswith("24 images with 2 numbers each: ")
    assert "  age: from 0 to 23, 11.5 on average" in report.lines()
    assert report.to_json()["numbers"]["weight"]["max"] == 23 / 8
    assert report.classes == {}
    assert report.errors == []


def test_check_stops_at_a_number_that_never_varies_and_names_one_that_lies_far_out(shapes, tmp_path):
    cells = [f"7,{number}" for number in range(23)] + ["7,9000"]
    report = found(shapes, tmp_path, "path,a,b", cells, Targets("regression", columns=("a", "b")))
    assert report.errors == ["a is 7 for every training image"]
    assert "b: far from all others: 9000" in [finding.text for finding in report.findings]


def test_the_picture_of_a_check_draws_numbers(shapes, tmp_path):
    cells = [f"{number},{number / 8}" for number in range(24)]
    rows = [f"{path},{cell}" for path, cell in zip(of_shapes(shapes), cells, strict=True)]
    targets = Targets("regression", columns=("age", "weight"))
    table = data.survey(shapes, labels=write(tmp_path, ["path,age,weight", *rows]), targets=targets)
    data.draw_check(table, data.check(table), tmp_path / "check.png")
    assert data.open_image(tmp_path / "check.png").width > 500
