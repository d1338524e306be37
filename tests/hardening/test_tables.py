"""Tables of labels as programs and people write them: read, or refused with the cause and the fix. Row 34."""

import numpy as np
import pandas as pd
import pytest
from conftest import write_shapes

from kit import data
from kit.data.labels import Targets
from kit.errors import DataError

MULTI, NUMBERS = Targets("multilabel"), Targets("regression")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight drawn images: photos/circle/00.png to photos/square/03.png."""
    return write_shapes(tmp_path_factory.mktemp("tables") / "photos", count=4, shapes=("circle", "square"))


@pytest.fixture(scope="module")
def frame(photos):
    """The same as a DataFrame."""
    paths = sorted(photos.rglob("*.png"))
    return pd.DataFrame({"path": map(str, paths), "label": [path.parent.name for path in paths]})


@pytest.fixture
def read(photos):
    """A function that writes a label file beside the images, with a row for each, and reads it.

    row: where {path}, {label} and {flag} stand; the flag is the first of `flags`, of the last image of each class the
    second.
    """

    def table(header, row="{path},{label}", above="", below="", flags=("", ""), encoding="utf-8", **how):
        paths = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
        rows = [row.format(path=path, label=path[:6], flag=flags["03" in path], stem=path[:-4]) for path in paths]
        file = photos.parent / "labels.csv"
        file.write_bytes((above + "\n".join([header, *rows]) + "\n" + below).encode(encoding))
        return data.table(photos, labels=file, **how)

    return table


def is_whole(table) -> bool:
    """Whether each image has the label of its folder."""
    return len(table) == 8 and all(f"/{row.label}/" in row.path for row in table.itertuples())


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path;label", "{path};{label}"),
        ("path\tlabel", "{path}\t{label}"),
        ("path|label", "{path}|{label}"),
        ("path,label", "{path},{label},,"),
        ("path,label,", "{path},{label},"),
        ("path, label", "{path}, {label}"),
        ('"path", "label"', '"{path}", "{label}"'),
        ("path,label", "./{path},{label}\n\n,"),
        ("path,label", "photos/{path},{label}"),
        ("id,label", "{stem},{label}"),
        ("path,label", "photos\\{path},{label}"),
    ],
)
def test_34_delimiters_trailing_commas_spaces_quotes_and_other_ways_to_write_a_path_are_read(read, header, row):
    assert is_whole(read(header, row))


@pytest.mark.parametrize("path", ["file_name", "filename", "Image", "image_id", "img", "File Name", "id"])
@pytest.mark.parametrize("label", ["Class", "target", "diagnosis"])
def test_34_usual_names_of_columns_are_known(read, path, label):
    assert is_whole(read(f"{path},{label}"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("above", ["sep=,\n", "# made by hand\n# on Monday, in May\n\n", ""])
def test_34_byte_order_marks_comments_and_excels_first_line_are_no_trouble(read, encoding, above):
    assert is_whole(read("path,label", above=above, encoding=encoding))


def test_34_a_name_without_suffix_that_two_images_fit_is_not_guessed(tmp_path):
    folder = write_shapes(tmp_path / "photos", count=2, shapes=("circle", "square"))
    (folder / "circle" / "00.jpg").write_bytes((folder / "circle" / "01.png").read_bytes())
    (tmp_path / "labels.csv").write_text("id,label\ncircle/00,a\nsquare/00,b\n")
    with pytest.raises(DataError, match=r"1 of 2 files of .* are not there: .*circle/00\n"):
        data.table(folder, labels=tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("column", "flags"),
    [
        ("is_valid", ("False", "True")),
        ("is_valid", ("0", "1")),
        ("IsValid", ("no", "yes")),
        ("is_train", ("1", "0")),
        ("Split", ("train", "val")),
        ("set", ("Train", "Valid")),
    ],
)
def test_34_columns_that_give_the_split_are_used(read, column, flags):
    table = read(f"path,label,{column}", "{path},{label},{flag}", flags=flags)
    assert sorted(path[-6:] for path in table.loc[table["split"] == "valid", "path"]) == ["03.png", "03.png"]
    assert set(table.loc[table["split"] == "train", "path"].str[-6:]) == {"00.png", "01.png", "02.png"}


def test_34_a_column_fold_of_numbers_is_named_as_not_used(read):
    findings = data.check(read("path,label,fold", "{path},{label},{flag}", flags=("0", "1"))).findings
    assert "column 'fold' is not used: its cells are not train, valid or test" in [one.text for one in findings]


@pytest.mark.parametrize(
    ("header", "row", "problem"),
    [
        ("circle/00.png,circle", "{path},{label}", "has no header: it begins with circle/00.png, circle"),
        ("path,label,label", "{path},{label},x", "has 2 columns 'label'"),
        ("path,label", "{path},{label}, round", "8 lines of .* have more cells than its first line: line 2, line 3"),
        ("path,label", '{path},"{label}', "line 3, cannot be read as CSV"),
        ("path,label", ",{label}", r"8 of 8 files of .* are not there: .*no path in row 2\)"),
        ("path,label,is_valid", "{path},{label},maybe", "row 2: is_valid is 'maybe'"),
        ("path,label", "{path},nan", "8 of 8 rows of .* have no label"),
        ("path,circle,square", "{path},1,0", "has no column 'label'(.|\n)*--targets circle,square"),
    ],
)
def test_34_what_cannot_be_read_is_refused_with_the_cause(read, header, row, problem):
    with pytest.raises(DataError, match=problem):
        read(header, row)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "labels.csv is empty"),
        (b"\n \n", "labels.csv is empty"),
        (b"path,label\n", "labels.csv has no rows"),
        (b"PK\x03\x04\xff", "it is an Excel or zip file"),
        ("path,label\n".encode("utf-16-le"), "it holds zero bytes"),
    ],
)
def test_34_files_that_are_no_csv_say_so(photos, tmp_path, content, problem):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        data.table(photos, labels=tmp_path / "labels.csv")


def test_34_columns_of_0_and_1_are_one_class_each_where_one_says_1(read):
    how = {"targets": Targets(columns=("circle", "square"))}
    table = read("path,circle,square", "{path},1.0,{flag}", flags=("0.0", "0.0"), **how)
    assert set(table["label"]) == {"circle"}
    with pytest.raises(DataError, match="row 5: 2 of the columns circle, square say 1") as error:
        read("path,circle,square", "{path},1,{flag}", flags=("0", "1"), **how)
    assert "--task multilabel" in error.value.fix


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([0.0, 1.0] * 4), {"0", "1"}),
        (np.array([0, 1] * 4), {"0", "1"}),
        ([True, False] * 4, {"True", "False"}),
        (pd.Categorical(["a", "b"] * 4), {"a", "b"}),
        (["001", "002"] * 4, {"001", "002"}),
        ([0.5, 1.0] * 4, {"0.5", "1.0"}),
    ],
)
def test_34_labels_of_any_type_are_classes_by_the_same_text_as_in_a_csv(frame, tmp_path, labels, expected):
    frame = frame.assign(label=labels)
    frame.to_csv(tmp_path / "labels.csv", index=False)
    assert set(data.table(frame)["label"]) == expected
    assert set(data.table(tmp_path, labels=tmp_path / "labels.csv")["label"]) == expected


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, "nan", ""])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_34_missing_labels_are_named_and_can_be_left_out(frame, missing, task):
    frame = frame.assign(label=pd.Series([missing, *range(1, 8)], dtype=object))
    with pytest.raises(DataError, match=r"1 of 8 rows of the DataFrame have no label: .*circle/00.png"):
        data.table(frame, targets=Targets(task))
    table = data.table(frame, targets=Targets(task), unlabelled="skip")
    assert sorted(table["label"]) == list("1234567")
    assert table.attrs["left_out"] == [{"path": frame["path"][0], "reason": "no label"}]


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, str])
def test_34_a_list_of_classes_is_several_labels(frame, kind):
    frame = frame.assign(label=[kind(["hot dog", shape]) for shape in frame["label"]])
    assert set(data.table(frame, targets=MULTI)["label"]) == {"circle;hot dog", "hot dog;square"}
    if kind is not str:
        with pytest.raises(DataError, match="row 0: .* is a list") as error:
            data.table(frame)
        assert "--task multilabel" in error.value.fix


def test_34_a_label_function_may_return_a_list_of_classes(photos):
    table = data.table(photos, label=lambda path: ["shape", path.parent.name], targets=MULTI)
    assert set(table["label"]) == {"circle;shape", "shape;square"}


def test_34_any_index_and_paths_of_any_type_are_read(frame, photos):
    assert len(data.table(frame.set_axis(range(50, 58)))) == 8
    assert len(data.table(frame.set_axis([0] * 8))) == 8
    assert len(data.table(frame.set_index("path"))) == 8
    assert len(data.table(frame.assign(path=sorted(photos.rglob("*.png"))))) == 8


def test_34_a_dataframe_without_rows_or_with_impossible_paths_is_refused(frame):
    for empty in (pd.DataFrame(), frame[:0]):
        with pytest.raises(DataError, match="the DataFrame has no rows"):
            data.table(empty)
    paths = [*frame["path"][:5], "x" * 5000, "a\0b", None]
    with pytest.raises(DataError, match=r"3 of 8 files of the DataFrame are not there: .*no path in row 7\)"):
        data.table(frame.assign(path=paths))


def test_34_a_decimal_comma_is_refused_with_the_fix(read):
    with pytest.raises(DataError, match="row 2: '3,5' is no number") as error:
        read("path;value", "{path};3,5", targets=NUMBERS)
    assert "write numbers with a point, like 41.5" in error.value.fix
