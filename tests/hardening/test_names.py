"""Names of files and classes in any script, Unicode form and encoding: one class each, and nothing lost. Row 45."""

import json
import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pandas as pd
import pytest
from conftest import draw_shape, write_shapes
from typer.testing import CliRunner

import kit
from kit import bundle, data
from kit.cli.main import application
from kit.data.labels import Targets

CAT, DOG = "고양이", "강아지"
ODD = "고양이".encode("cp949")  # as unpacked on Linux from a zip file of a Korean Windows
ESCAPED = ODD.decode(errors="surrogateescape").encode(errors="backslashreplace").decode()


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def draw(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        draw_shape("circle", number).save(folder / f"{number}.png")


def notes(table) -> list[str]:
    return [finding.text for finding in data.check(table).findings]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of two classes; the name of one, and of a file of the other, are not UTF-8."""
    folder = write_shapes(tmp_path_factory.mktemp("odd") / "photos", count=6, shapes=("circle", "square"))
    os.rename(folder / "circle", os.fsencode(folder) + b"/" + ODD)  # noqa: PTH104 (bytes)
    os.rename(folder / "square" / "00.png", os.fsencode(folder / "square") + b"/" + ODD + b".png")  # noqa: PTH104
    return folder


@pytest.fixture(scope="module")
def odd_run(odd, tiny, tmp_path_factory):
    return kit.fine_tune(odd, tiny, out=tmp_path_factory.mktemp("runs") / "odd", onnx=False)


def test_45_names_that_are_not_utf8_are_escaped_in_all_files(odd, odd_run):
    assert odd_run.learner.dls.vocab == [ESCAPED, "square"]
    table = pd.read_csv(odd_run.folder / "table.csv")
    assert set(table["label"]) == {ESCAPED, "square"}
    assert sum(ESCAPED in path for path in table["path"]) == 7
    assert json.loads((odd_run.bundle / "config.json").read_text(encoding="utf-8"))["vocab"] == [ESCAPED, "square"]
    for file in odd_run.folder.rglob("*"):
        if file.suffix in (".json", ".csv", ".html", ".md"):
            file.read_text(encoding="utf-8")
    again = data.table(odd, labels=odd_run.folder / "table.csv")
    assert again["path"].tolist() == odd_run.table["path"].tolist()
    assert any("7 paths are not UTF-8" in text and "convmv" in text for text in notes(odd_run.table))


def test_45_commands_predict_and_evaluate_files_whose_names_are_not_utf8(odd, odd_run, tmp_path):
    kit_command = CliRunner()
    done = kit_command.invoke(
        application(), ["predict", str(odd_run.folder), str(odd), "--out", str(tmp_path / "a.csv")]
    )
    assert done.exit_code == 0, done.output
    answers = pd.read_csv(tmp_path / "a.csv")
    assert len(answers) == 12
    assert sum(ESCAPED in path for path in answers["path"]) == 7
    assert bundle.load(odd_run.bundle).predict(sorted(map(str, odd.rglob("*.png")))).table()["error"].isna().all()
    for number, folder in enumerate(sorted(odd.iterdir())):
        draw(tmp_path / "new" / folder.name, 2, 50 + 10 * number)
    arguments = ["evaluate", odd_run.bundle, tmp_path / "new", "--out", tmp_path / "b.csv"]
    done = kit_command.invoke(application(), list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert set(pd.read_csv(tmp_path / "b.csv")["label"]) == {ESCAPED, "square"}


def test_45_cross_validation_takes_names_that_are_not_utf8(odd, quick, tmp_path):
    found = kit.cross_validate(odd, quick, folds=2, out=tmp_path / "folds")
    assert found.evaluation.n == 12
    assert sum(ESCAPED in path for path in pd.read_csv(tmp_path / "folds" / "predictions.csv")["path"]) == 7


def said(encoding: str, *words: str) -> str:
    """What kit prints to an output of that encoding."""
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-m", "kit.cli.main", *words], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(encoding)


def test_45_what_the_output_cannot_encode_is_escaped(tmp_path):
    for place, name in enumerate((CAT, "é🐱")):
        draw(tmp_path / name, 4, 10 * place)
    assert CAT.encode("ascii", "backslashreplace").decode() in said("ascii", "check", str(tmp_path))
    assert set(json.loads(said("cp1252", "check", str(tmp_path), "--json"))["classes"]) == {CAT, "é🐱"}


def test_45_one_class_in_two_unicode_forms_is_one_class_with_a_note(tmp_path):
    draw(tmp_path / nfd(CAT), 4)
    draw(tmp_path / CAT, 4, 20)
    draw(tmp_path / DOG, 4, 40)
    table = data.table(tmp_path)
    assert table["label"].value_counts().to_dict() == {CAT: 8, DOG: 4}
    assert [text for text in notes(table) if CAT in text] == [
        f"one class each, though written in two Unicode forms (NFC, and NFD as on macOS): {CAT}"
    ]


def test_45_training_and_validation_folders_in_different_forms_have_the_same_classes(tmp_path):
    for side, form in (("train", "NFD"), ("valid", "NFC")):
        for place, name in enumerate((CAT, "Bücher")):
            draw(tmp_path / side / unicodedata.normalize(form, name), 3, 100 * (side == "train") + 10 * place)
    table = data.table(tmp_path)
    assert set(table["label"]) == {CAT, "Bücher"}
    assert data.check(table).errors == []


@pytest.fixture(params=["NFC", "NFD"])
def other_form(request, tmp_path):
    """A folder in one form, and a table in the other: of the files and classes that are in the folder."""
    mine, other = (lambda text: unicodedata.normalize(request.param, text)), (nfd if request.param == "NFC" else str)
    for place, name in enumerate((CAT, DOG)):
        draw(tmp_path / mine(name), 3, 10 * place)
    (tmp_path / mine(CAT) / "0.png").rename(tmp_path / mine(CAT) / mine("é.png"))
    names = sorted(unicodedata.normalize("NFC", str(path.relative_to(tmp_path))) for path in tmp_path.rglob("*.png"))
    return tmp_path, pd.DataFrame({"path": map(other, names), "label": [other(name[:3]) for name in names]})


def test_45_a_table_in_one_form_finds_files_in_the_other(other_form):
    folder, rows = other_form
    rows.to_csv(folder / "labels.csv", index=False)
    table = data.table(folder, labels=folder / "labels.csv")
    assert table["label"].value_counts().to_dict() == {CAT: 3, DOG: 3}
    assert all(Path(path).is_file() for path in table["path"])
    frame = rows.assign(path=[f"{folder}/{path}" for path in rows["path"]])
    assert data.table(frame)["path"].tolist() == table["path"].tolist()


def test_45_patterns_functions_and_columns_are_compared_in_one_form(other_form):
    folder, rows = other_form
    classes = {CAT, DOG}
    for form in ("NFC", "NFD"):
        rule = unicodedata.normalize(form, f"({CAT}|{DOG})/")
        assert set(data.table(folder, label=rule)["label"]) == classes
        assert set(data.table(folder, label=lambda path: path.parent.name)["label"]) == classes
        rows.rename(columns={"label": unicodedata.normalize(form, "종류")}).to_csv(folder / "labels.csv", index=False)
        assert (
            set(data.table(folder, labels=folder / "labels.csv", targets=Targets(columns=("종류",)))["label"])
            == classes
        )
    rows["label"] = [f"{nfd(CAT)};{label}" for label in rows["label"]]
    rows.to_csv(folder / "labels.csv", index=False)
    table = data.table(folder, labels=folder / "labels.csv", targets=Targets("multilabel"))
    assert set(table["label"]) == {CAT, f"{DOG};{CAT}" if DOG < CAT else f"{CAT};{DOG}"}


def test_45_two_files_whose_names_differ_only_in_the_form_are_two_images(tmp_path):
    write_shapes(tmp_path, count=3, shapes=("circle", "square"))
    for seed, name in enumerate(("é.png", nfd("é.png"))):
        draw_shape("circle", 50 + seed).save(tmp_path / "circle" / name)
    assert len(data.table(tmp_path)) == 8


def test_45_control_characters_in_names_are_escaped(tmp_path):
    draw(tmp_path / "a\nb\x1b[31m", 3)
    draw(tmp_path / '=1+1,"x"', 3, 20)
    assert set(data.table(tmp_path)["label"]) == {r"a\nb\x1b[31m", '=1+1,"x"'}


def test_45_letters_without_a_font_are_one_line_and_no_warnings(tmp_path, capsys, monkeypatch):
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    from kit import fonts

    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_: [font_manager.findfont("DejaVu Sans")])
    fonts.fonts_for.cache_clear()
    fonts.say_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in (CAT, DOG, "plain, cost $5 or $x^2$"):
            figure = Figure()
            figure.suptitle(name)
            fonts.save_figure(figure, tmp_path / "figure.png")
    said = capsys.readouterr().err.splitlines()
    fonts.fonts_for.cache_clear()
    assert len(said) == 1
    assert "apt install fonts-noto-cjk" in said[0]
    assert data.open_image(tmp_path / "figure.png").width > 500


def test_45_a_font_that_has_the_letters_is_found_in_the_files_of_the_system(monkeypatch):
    from matplotlib import font_manager, get_data_path

    from kit import fonts

    files = [str(path) for path in (Path(get_data_path()) / "fonts" / "ttf").glob("*.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_: files)
    fonts.fonts_for.cache_clear()
    assert fonts.fonts_for(frozenset("cat")) == []
    assert fonts.fonts_for(frozenset("cat ⌚"))[0].startswith("STIX")  # which DejaVu Sans lacks
    fonts.fonts_for.cache_clear()
