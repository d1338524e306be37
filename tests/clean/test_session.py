"""A folder with faults, from its images to findings, decisions, a CSV, and what they changed."""

import json
import os
import shlex
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from kit import Recipe, data
from kit.clean import apply, clean, default_csv, find_issues, undo_apply
from kit.clean.commands import images_of, training_line
from kit.clean.decisions import Decision, Decisions, Journal
from kit.clean.effect import effect_lines
from kit.clean.labelling import start_labelling
from kit.clean.moves import moves_back, planned_moves
from kit.clean.page import application as page_of
from kit.clean.session import start
from kit.cli.main import application
from kit.errors import DataError, KitError
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
    audited = [session.table["name"][row] for row in session.audit]
    count = len(audited)
    other = next(name for row, name in enumerate(session.table["name"]) if row not in session.audit)
    session.decide(Decision(other, "label", "dog"))
    assert session.wrong_share() is None
    for name in audited[1:]:  # as findings do, in any order
        session.decide(Decision(name, "label", "dog"))
    assert session.wrong_share() is None
    session.decide(Decision(audited[0], "keep"))
    assert (session.wrong_share().n, session.wrong_share().value) == (count, (count - 1) / count)
    assert f"of {count} validation images drawn at random {count - 1} had a wrong label" in session.says()
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


def table_of(folder: Path, **columns) -> Path:
    """A CSV with a row for each image in `folder`, and these columns, as functions of its number."""
    names = sorted(path.name for path in folder.glob("*.png"))
    rows = {"path": names} | {name: [cell(number) for number in range(len(names))] for name, cell in columns.items()}
    csv = folder.parent / "given.csv"
    pd.DataFrame(rows).to_csv(csv, index=False)
    return csv


@pytest.fixture
def flat(shapes, tmp_path) -> Path:
    """24 images in one folder."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for path in shapes.rglob("*.png"):
        shutil.copy(path, folder / f"{path.parent.name}_{path.name}")
    return folder


TABLES = {
    "multilabel": (
        {"task": "multilabel", "delimiter": "|"},
        {"labels": lambda number: ["round|red", "red", ""][number // 8]},
        "blue;red",
    ),
    "one number": (
        {"task": "regression", "targets": "age"},
        {"age": lambda number: number // 8 + number / 100, "group": lambda number: f"g{number // 2}"},
        "2.5",
    ),
    "two numbers": (
        {"task": "regression", "targets": "age,weight"},
        {
            "age": lambda number: number // 8,
            "weight": lambda number: number,
            "split": lambda number: ("train", "valid")[number % 2],
        },
        "2.5;7",
    ),
    "columns of 1": (
        {"task": "multilabel", "targets": "round,red"},
        {"round": lambda number: int(number < 8), "red": lambda number: int(number % 2)},
        "red;round",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_csv_of_each_kind_of_label_is_read_as_it_was_written(flat, of_package, tmp_path, name):
    fields, columns, wanted = TABLES[name]
    recipe = replace(of_package, **fields, labels=str(table_of(flat, **columns)))
    with Journal(tmp_path / "out.csv", flat) as journal:
        session = start(flat, recipe, journal)
        session.decide(Decision(session.table["name"][0], "label", wanted))
        session.save()
    words = shlex.split(training_line(session))
    told = {words[place].removeprefix("--"): words[place + 1] for place in range(3, len(words), 2)}
    again = Recipe(**{name: told[name] for name in ("labels", "task", "delimiter", "targets") if name in told})
    table = data.table(flat, **data.table_args(again))
    assert table["label"].tolist() == [wanted, *session.table["label"][1:]]
    assert table["split"].tolist() == session.table["split"].tolist()
    assert table["group"].tolist() == session.table["group"].tolist()

    run = tmp_path / "run"
    run.mkdir()
    session.table[["path", "label", "split", "group"]].to_csv(run / "table.csv", index=False)
    chosen = {"source": "flat", "folder": str(tmp_path), "arch": of_package.arch}
    (run / "recipe.json").write_text(json.dumps({"recipe": recipe.to_json(), "chosen": chosen}))
    images = images_of(run, Recipe())
    assert (images.folder, images.by_folder) == (flat, False)
    found = data.table(images.rows, **data.table_args(images.recipe))
    assert found["label"].tolist() == session.table["label"].tolist()
    assert found["split"].tolist() == session.table["split"].tolist()


def test_decisions_of_another_task_are_refused(flat, of_package):
    fields, columns, _ = TABLES["two numbers"]
    recipe, decisions = replace(of_package, **fields, labels=str(table_of(flat, **columns))), Decisions()
    decisions._apply(Decision("circle_00.png", "label", "5"))
    with pytest.raises(DataError, match="circle_00.png was decided as '5', which is no label here: '5' is not the 2"):
        start(flat, recipe, decisions)


def test_names_that_are_not_utf_8_or_have_line_ends_are_kept(shapes, of_package, tmp_path):
    folder = Path(shutil.copytree(shapes, tmp_path / "photos"))
    odd = [b"caf\xe9.png", b"a\nb.png", b'a, "b" <b>.png']
    for number, name in enumerate(odd):
        (folder / "circle" / f"0{number}.png").rename(os.fsdecode(os.fsencode(folder / "circle") + b"/" + name))
    shutil.copy(os.fsencode(folder / "circle") + b"/" + odd[0], folder / "square" / "copy.png")
    (folder / "circle" / os.fsdecode(b"cut\xe9.png")).write_bytes(b"x" * 100)
    with Journal(tmp_path / "out.csv", folder) as journal:
        session = start(folder, of_package, journal)
        client = TestClient(page_of(session))
        assert client.get("/clean/state").json()["broken"]
        for row, name in enumerate(session.table["name"]):
            assert client.get(f"/clean/card/{row}").json()["name"] == name
            assert client.get(f"/clean/image/{row}").status_code == 200
            session.decide(Decision(name, "label", "square"))
        session.save()
        assert set(data.table(folder, labels=tmp_path / "out.csv")["label"]) == {"square"}
        planned_moves(folder, journal, by_folder=True).run()
    assert {os.fsencode(path.name) for path in (folder / "square").iterdir()} >= set(odd)


def test_a_model_of_another_task_gives_no_suggestions(shapes, of_package, tmp_path, monkeypatch):
    class Other:
        task, vocab = "multilabel", ("a", "b")

    monkeypatch.setattr("kit.clean.labelling.find_bundle", lambda path: path)
    monkeypatch.setattr("kit.bundle.read.load", lambda path: Other())
    with pytest.raises(DataError, match="is a multilabel model"):
        start_labelling(shapes, of_package, Decisions(), [], like=tmp_path)


def test_the_file_of_labels_is_not_replaced(drawings, of_package, tmp_path):
    csv = tmp_path / "drawings-labels.csv"
    csv.write_text("path,label\ncat/1.jpg,cat\n")
    with pytest.raises(DataError, match="is the file of labels and would be replaced"):
        clean(drawings, replace(of_package, labels=str(csv)), csv)
    assert csv.read_text() == "path,label\ncat/1.jpg,cat\n"


def test_a_port_in_use_is_said_before_the_images_are_read(drawings, of_package, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.clean.commands._session", None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(KitError, match="the port is in use"):
        clean(drawings, of_package, tmp_path / "out.csv", port=taken.getsockname()[1])
    assert not any(tmp_path.iterdir())


def test_the_command_prints_the_findings_as_json(drawings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--json", "--size", "96", "--arch", "tf_efficientnet_lite0"]
    done = CliRunner().invoke(application(["clean"]), ["clean", str(drawings), *options])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert {"path", "label", "kind", "score", "reason", "suggestion", "similar"} <= set(found[0])
    assert not any(tmp_path.iterdir())
    done = CliRunner().invoke(application(["clean"]), ["clean", str(drawings), *options, "--out", "findings.csv"])
    assert done.exit_code == 0
    assert pd.read_csv("findings.csv")["path"].tolist() == [one["path"] for one in found]


def test_files_that_cannot_be_opened_are_findings_too(drawings, of_package, tmp_path):
    shutil.copytree(drawings, tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "cut.jpg").write_bytes(b"x" * 100)
    broken = [one for one in find_issues(tmp_path / "photos", of_package) if one["kind"] == "broken"]
    assert [Path(one["path"]).name for one in broken] == ["cut.jpg"]
    assert "not an image" in broken[0]["reason"]


@pytest.fixture
def photos(drawings, tmp_path) -> Path:
    """A copy of the drawings whose files may be moved."""
    return Path(shutil.copytree(drawings, tmp_path / "photos"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_files_move_as_decided_and_back_and_the_csv_follows(photos, of_package, tmp_path, capsys):
    csv, before, right = tmp_path / "photos-labels.csv", files(photos), strays(photos)
    with Journal(csv, photos) as journal:
        session = start(photos, of_package, journal)
        for name, label in right.items():
            session.decide(Decision(name, "label", label))
        session.decide(Decision("dog/mirrored.jpg", "drop"))
        session.save()
    apply(photos, of_package, csv, sure=lambda: False)
    assert files(photos) == before
    assert "3 files move:" in capsys.readouterr().err
    apply(photos, of_package, csv, sure=lambda: True)
    assert "undo it with --undo-apply" in capsys.readouterr().err
    assert (tmp_path / "photos-dropped" / "dog" / "mirrored.jpg").is_file()
    assert not strays(photos)
    table = data.table(photos, labels=csv)
    assert len(table) == len(before)
    assert table["split"].tolist().count("out") == 1
    apply(photos, of_package, csv, sure=lambda: True)
    assert "no file has to be moved" in capsys.readouterr().err
    undo_apply(csv, sure=lambda: True)
    assert "3 files moved back" in capsys.readouterr().err
    assert files(photos) == before
    assert len(data.table(photos, labels=csv)) == len(before)
    with pytest.raises(DataError, match="nothing was moved"):
        undo_apply(csv, sure=lambda: True)


def test_moved_files_with_the_same_name_get_a_number(photos, of_package, tmp_path):
    names = sorted(path.name for path in (photos / "cat").glob("*.jpg"))[:1]
    (photos / "dog" / names[0]).write_bytes((photos / "dog" / "mirrored.jpg").read_bytes())
    (photos / "bird").mkdir()
    shutil.copy(photos / "dog" / "mirrored.jpg", photos / "bird" / "x.jpg")
    shutil.copy(photos / "dog" / "mirrored.jpg", photos / "cat" / "x.jpg")
    before = files(photos)
    with Journal(tmp_path / "labels.csv", photos) as journal:
        journal.add(Decision(f"cat/{names[0]}", "label", "dog"))
        journal.add(Decision(f"dog/{names[0]}", "label", "cat"))
        journal.add(Decision("bird/x.jpg", "label", "dog"))
        journal.add(Decision("cat/x.jpg", "label", "dog"))
        planned_moves(photos, journal, by_folder=True).run()
        moved = files(photos)
        assert sorted(moved.values()) == sorted(before.values())
        assert {"dog/x.jpg", "dog/x-2.jpg"} <= set(moved)
        assert moved[f"dog/{Path(names[0]).stem}-2.jpg"] == before[f"cat/{names[0]}"]
        moves_back(journal).run()
    assert files(photos) == before


def test_a_killed_apply_can_be_continued_and_undone(photos, tmp_path, monkeypatch):
    before, right = files(photos), strays(photos)

    def killed(*_):
        raise KeyboardInterrupt

    with Journal(tmp_path / "labels.csv", photos) as journal:
        for name, label in right.items():
            journal.add(Decision(name, "label", label))
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "rename", killed)
            planned_moves(photos, journal, by_folder=True).run()
        log = tmp_path / "labels-moves.jsonl"
        log.write_bytes(log.read_bytes() + b'["/half a li')
        assert moves_back(journal).lines() == ["no file has to be moved"]
        planned_moves(photos, journal, by_folder=True).run()
        assert not strays(photos)
        moves_back(journal).run()
    assert files(photos) == before


@pytest.mark.parametrize("label", ["..", "a/b", "a\\b", "x" * 300])
def test_classes_that_are_no_folder_names_move_nothing(photos, tmp_path, label):
    before, name = files(tmp_path), next(iter(strays(photos)))
    with Journal(tmp_path / "labels.csv", photos) as journal:
        journal.add(Decision(name, "label", label))
        with pytest.raises(KitError):
            planned_moves(photos, journal, by_folder=True).run()
    assert files(tmp_path) == before


def test_images_outside_of_the_folder_do_not_move(photos, drawings, tmp_path):
    secret = tmp_path / "secret.jpg"
    shutil.copy(photos / "dog" / "mirrored.jpg", secret)
    with Journal(tmp_path / "labels.csv", photos) as journal:
        for name in ("../secret.jpg", str(secret)):
            journal.add(Decision(name, "drop"))
        assert planned_moves(photos, journal, by_folder=True).moves == []


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
