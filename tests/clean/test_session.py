"""A folder with faults, from its images to findings, decisions, a CSV, and what they changed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kit import data
from kit.clean import default_csv, find_issues, moves_back, moves_of
from kit.clean.decisions import Decision, Decisions, Journal
from kit.clean.effect import effect_lines
from kit.clean.labelling import start_labelling
from kit.clean.session import start
from kit.cli.main import application
from kit.errors import DataError, OutputError
from kit.features.embedding import positions


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "labels.csv") as journal:
        yield journal


@pytest.fixture
def session(drawings, of_package, journal):
    return start(drawings, of_package, journal)


def strays(folder: Path) -> dict[str, str]:
    """The drawings in the other class's folder, and the right class."""
    return {
        path.relative_to(folder).as_posix(): "cat" if path.name[0].isupper() else "dog"
        for path in folder.rglob("*.jpg")
        if path.parent.name != ("cat" if path.name[0].isupper() else "dog")
    }


def test_findings_name_the_wrong_labels_and_the_copy(session, drawings):
    kinds: dict[str, set[str]] = {}
    for one in session.findings:
        kinds.setdefault(one.kind, set()).add(session.table["name"][one.row])
    assert set(strays(drawings)) <= kinds["label"]
    assert any("mirrored.jpg" in name or name in kinds["copy"] for name in kinds["copy"])
    likely = [one for one in session.findings if one.kind == "label"]
    assert [one.score for one in likely] == sorted((one.score for one in likely), reverse=True)
    assert all(one.similar and one.row not in one.similar for one in likely)


def test_decisions_change_the_next_look_and_the_csv_trains(session, drawings, of_package):
    right = strays(drawings)
    for name, label in right.items():
        session.decide(Decision(name, "label", label))
    session.decide(Decision("dog/mirrored.jpg", "drop"))
    session.look()
    assert not [one for one in session.findings if session.table["name"][one.row] in right and one.kind == "label"]
    assert "copy" not in {one.kind for one in session.findings}
    lines = effect_lines(session)
    assert lines[0].startswith("with your 2 corrections and 1 image dropped: error ")
    assert "by their new labels" in lines[0]
    assert "look lower than it is" in lines[1]
    session.save()
    table = data.table(drawings, labels=session.journal.csv)
    found = table.assign(name=[str(Path(path).relative_to(drawings)) for path in table["path"]]).set_index("name")
    assert found.loc[list(right), "label"].to_dict() == right
    assert found.loc["dog/mirrored.jpg", "split"] == "out"
    kept = session.table.set_index("name")["split"]
    assert (
        found["split"]
        .drop("dog/mirrored.jpg")
        .equals(kept.drop("dog/mirrored.jpg")[found.index.drop("dog/mirrored.jpg")])
    )


def test_nothing_decided_is_said(session):
    assert effect_lines(session) == ["nothing was changed yet"]
    assert session.says() == ""


def test_the_share_of_wrong_labels_counts_only_images_drawn_at_random(session):
    audited = [session.table["name"][row] for row in session.audit[:3]]
    other = next(name for row, name in enumerate(session.table["name"]) if row not in session.audit)
    session.decide(Decision(other, "label", "dog"))
    assert session.wrong_share() is None
    for name in audited:
        session.decide(Decision(name, "keep"))
    assert (session.wrong_share().n, session.wrong_share().value) == (3, 0)
    assert "of 3 validation images drawn at random 0 had a wrong label" in session.says()
    assert set(session.table["split"].iloc[session.audit]) == {"valid"}


def test_images_like_one_and_unknown_images(session):
    like = session.like(4)
    assert len(like) == len(set(like)) == 24
    assert 4 not in like
    with pytest.raises(DataError, match="is not an image of"):
        session.decide(Decision("../secret.jpg", "drop"))
    with pytest.raises(DataError, match="the label is empty"):
        session.decide(Decision(session.table["name"][0], "label", "  "))


def test_the_map_has_a_place_for_each_image(session):
    found = positions(session.features)
    assert found.shape == (len(session.table), 2)
    assert found.min() >= 0
    assert found.max() <= 1
    assert positions(session.features[:2]).shape == (2, 2)


def test_a_run_shows_its_map_and_its_images_can_be_cleaned(drawings, of_package, tmp_path):
    import kit

    run = kit.fine_tune(drawings, replace(of_package, layers="head"), out=tmp_path / "run", onnx=False)
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert report.count("<title>") == 1 + run.evaluation.n  # a dot with the name of the image
    assert "Map of the images" in report
    found = find_issues(run.folder)
    assert {Path(one["path"]).name for one in found if one["kind"] == "label"} >= {
        Path(one).name for one in strays(drawings)
    }


def test_the_command_prints_the_findings_as_json(drawings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--json", "--size", "96", "--arch", "tf_efficientnet_lite0"]
    done = CliRunner().invoke(application(["clean"]), ["clean", str(drawings), *options])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert {"path", "label", "kind", "score", "reason", "suggestion", "similar"} <= set(found[0])
    assert not any(tmp_path.iterdir())


def test_files_that_cannot_be_opened_are_findings_too(drawings, of_package, tmp_path):
    shutil.copytree(drawings, tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "cut.jpg").write_bytes(b"x" * 100)
    broken = [one for one in find_issues(tmp_path / "photos", of_package) if one["kind"] == "broken"]
    assert [Path(one["path"]).name for one in broken] == ["cut.jpg"]
    assert "not an image" in broken[0]["reason"]


def test_files_move_as_decided_and_back(session, drawings, of_package, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(drawings, folder)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*.jpg"))
    right = strays(drawings)
    for name, label in right.items():
        session.decide(Decision(name, "label", label))
    session.decide(Decision("dog/mirrored.jpg", "drop"))
    session.save()
    csv = session.journal.csv
    moves = moves_of(folder, csv, of_package)
    assert moves.lines()[0] == "3 files move:"
    assert "undo it with --undo-apply" in moves.run()
    assert (tmp_path / "photos-dropped" / "dog" / "mirrored.jpg").is_file()
    assert not strays(folder)
    assert moves_of(folder, csv, of_package).lines() == ["no file has to be moved"]
    assert moves_back(csv).run() == "3 files are back where they were"
    assert sorted(path.relative_to(folder) for path in folder.rglob("*.jpg")) == before
    with pytest.raises(DataError, match="nothing was moved"):
        moves_back(csv)


def test_no_file_is_overwritten_by_a_move(session, drawings, of_package, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(drawings, folder)
    name, label = next(iter(strays(drawings).items()))
    (folder / label / Path(name).name).write_bytes(b"mine")
    session.decide(Decision(name, "label", label))
    session.save()
    with pytest.raises(OutputError, match="is there already"):
        moves_of(folder, session.journal.csv, of_package).run()
    assert (folder / label / Path(name).name).read_bytes() == b"mine"
    assert (folder / name).is_file()


def test_labelling_begins_with_unlike_images_and_then_suggests(drawings, of_package, journal):
    session = start_labelling(drawings, of_package, journal, ["dog", "cat"])
    assert session.classes == ["dog", "cat"]
    assert len(session.findings) == len(session.table)
    assert not any(one.suggestion for one in session.findings)
    assert session.says() == "a first model after 20 labels of two classes"
    for one in session.findings[:24]:
        name = session.table["name"][one.row]
        session.decide(Decision(name, "label", "cat" if Path(name).name[0].isupper() else "dog"))
    session.look()
    assert len(session.findings) == len(session.table) - 24
    right = [
        one.suggestion == ("cat" if Path(session.table["name"][one.row]).name[0].isupper() else "dog")
        for one in session.findings
    ]
    assert sum(right) > 0.7 * len(right)
    assert session.says().startswith("a model on these labels: error ")


def test_labelling_needs_classes_and_one_class_an_image(drawings, of_package):
    with pytest.raises(DataError, match="no classes to choose from"):
        start_labelling(drawings, of_package, Decisions(), [])
    with pytest.raises(DataError, match="one class each"):
        start_labelling(drawings, replace(of_package, task="multilabel"), Decisions(), ["cat"])


def test_a_run_gives_classes_and_suggestions(drawings, of_package, run, shapes):
    session = start_labelling(shapes, of_package, Decisions(), ["star"], like=run.folder)
    assert session.classes == [*sorted(run.learner.dls.vocab), "star"]
    assert {one.suggestion for one in session.findings} <= set(run.learner.dls.vocab)


def test_the_csv_is_named_after_the_folder(tmp_path):
    assert default_csv(tmp_path / "photos") == Path("photos-labels.csv")
