"""kit predict --out: many images to a file, in parts that outlast a kill, with the same rows in each form."""

import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import write_shapes
from typer.testing import CliRunner

from kit import bundle
from kit.bundle import prediction_files
from kit.cli.main import application
from kit.files import locked

FORMS = ("csv", "jsonl", "parquet")
PROGRAM = """
import onnxruntime
import pyarrow.parquet
import kit.bundle.prediction_files as files
import kit.bundle.predictor
import kit.bundle.read
import kit.data.listing
from kit.cli.main import run
files.MOST_ROWS = 8
print("ready", flush=True)
run()
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """90 images, two of which cannot be opened, and two other files."""
    folder = write_shapes(tmp_path_factory.mktemp("many") / "photos", count=30)
    (folder / "circle" / "05.png").write_bytes(b"")
    (folder / "square" / "11.png").write_text("text")
    (folder / "notes.txt").touch()
    (folder / "linked").symlink_to(folder / "circle")
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 8 images."""
    monkeypatch.setattr(prediction_files, "MOST_ROWS", 8)


def predict(run, images, out, *options, expect=0, **how):
    arguments = ["predict", run.bundle, images, "--out", out, "--batch", 4, *options]
    done = CliRunner().invoke(application(), [str(one) for one in arguments], **how)
    assert done.exit_code == expect, done.output
    return done


def read(path):
    if path.suffix == ".jsonl":
        return pd.DataFrame(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def assert_same(table, other):
    loose = {"check_dtype": False, "check_column_type": False, "atol": 1e-6}
    pd.testing.assert_frame_equal(table.convert_dtypes(), other.convert_dtypes(), **loose)


def test_all_forms_hold_the_same_rows_in_order_and_bad_images_with_their_reason(run, photos, tmp_path, small_parts):
    done = [predict(run, photos, tmp_path / f"answers.{form}") for form in FORMS]
    text, lines, table = (read(tmp_path / f"answers.{form}") for form in FORMS)
    assert list(table) == ["path", "prediction", "probability", "p_circle", "p_square", "p_triangle", "unlike", "error"]
    assert table["path"].tolist() == sorted(map(str, photos.rglob("*.png")))
    for other in (text, lines):
        assert_same(other, table)
    failed = table[table["error"].notna()]
    assert failed["error"].tolist()[0] == "the file is empty"
    assert failed["error"].tolist()[1].startswith("not an image of the formats")
    assert failed["prediction"].isna().all()
    assert "88 of 90 images predicted" in done[0].stderr
    assert "left out 1 (a link to a folder, not followed): linked" in done[0].stderr
    expected = bundle.load(run.bundle).predict(sorted(photos.rglob("*.png")), batch=4).table()
    assert_same(table, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"answers.{form}" for form in FORMS)


def test_a_csv_file_has_no_byte_order_mark_and_paths_as_they_are(run, photos, tmp_path, monkeypatch):
    (tmp_path / "=photos").mkdir()
    shutil.copy(photos / "circle" / "00.png", tmp_path / "=photos" / "ä.png")
    monkeypatch.chdir(tmp_path)
    predict(run, "=photos", "answers.csv")
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["path"] == "=photos/ä.png"


def test_parquet_and_json_lines_take_names_that_are_not_utf8(run, photos, tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    shutil.copy(photos / "circle" / "00.png", os.fsencode(odd) + b"/a\xff\n.png")
    for form in FORMS:
        predict(run, odd, tmp_path / f"answers.{form}")
    assert read(tmp_path / "answers.parquet")["path"].tolist() == [f"{odd}/a\\udcff\n.png"]
    assert read(tmp_path / "answers.csv")["path"].tolist() == [f"{odd}/a\\udcff\n.png"]
    line = json.loads((tmp_path / "answers.jsonl").read_text(encoding="utf-8"))
    assert os.fsencode(line["path"]) == os.fsencode(odd) + b"/a\xff\n.png"


@pytest.fixture
def stopped(run, photos, tmp_path, small_parts, monkeypatch):
    """A prediction into answers.csv that a full disk ended after 24 images."""
    monkeypatch.setattr(prediction_files.TextRows, "part", full_after(3, prediction_files.TextRows.part))
    predict(run, photos, tmp_path / "answers.csv", expect=1)
    monkeypatch.undo()
    return tmp_path / "answers.csv"


def full_after(parts, part):
    count = iter(range(parts))

    def limited(self, path):
        if next(count, None) is None:
            raise OSError(28, "No space left on device", str(path))
        return part(self, path)

    return limited


def test_a_stopped_command_goes_on_where_it_was_and_gives_the_same_file(run, photos, tmp_path, stopped):
    assert not stopped.exists()
    parts = tmp_path / "answers.csv.partial"
    assert sorted(path.name for path in parts.glob("0*"))[-1] == "000000000016-000000000024-0"
    done = predict(run, photos, stopped)
    assert "has the answers for 24 of 90 images; it goes on from there" in done.stderr
    assert "88 of 90 images predicted" in done.stderr
    assert not parts.exists()
    predict(run, photos, tmp_path / "whole.csv")
    assert stopped.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("what", ["settings", "images", "bundle"])
def test_answers_of_another_command_are_never_mixed_with_these(run, photos, tmp_path, stopped, what):
    options = ["--batch", "8"] if what == "settings" else []
    images = photos / "circle" if what == "images" else photos
    if what == "bundle":
        job = tmp_path / "answers.csv.partial" / "job.json"
        job.write_text(job.read_text().replace('"bundle": "', '"bundle": "0'))
    done = predict(run, images, stopped, *options, expect=1)
    assert f"answers.csv.partial holds answers of a command with other {what}" in str(done.exception)


def test_a_missing_part_is_found(run, photos, tmp_path, stopped):
    (tmp_path / "answers.csv.partial" / "000000000008-000000000016-0").unlink()
    assert "a part of" in str(predict(run, photos, stopped, expect=1).exception)


def test_two_commands_do_not_write_the_same_file(run, photos, tmp_path):
    (tmp_path / "answers.csv.partial").mkdir()
    with locked(tmp_path / "answers.csv.partial"):
        done = predict(run, photos, tmp_path / "answers.csv", expect=1)
    assert "another kit is writing" in str(done.exception)


def test_an_error_before_the_first_part_leaves_nothing(run, tmp_path):
    (tmp_path / "empty").mkdir()
    done = predict(run, tmp_path / "empty", tmp_path / "answers.csv", expect=1)
    assert "holds no images" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    done = predict(run, tmp_path / "empty", tmp_path / "answers.txt", expect=1)
    assert "answers.txt: predictions are written to .csv, .jsonl, .parquet" in str(done.exception)


def test_parquet_without_pyarrow_names_the_package_before_anything_is_predicted(run, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    done = predict(run, photos, tmp_path / "answers.parquet", expect=1)
    assert "Fix: pip install pyarrow" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))


def test_37_with_no_room_for_the_new_file_the_old_one_stays(run, photos, tmp_path):
    (tmp_path / "answers.csv").write_text("old")
    command = [sys.executable, "-c", PROGRAM, "predict", run.bundle, photos, "--out", tmp_path / "answers.csv"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, preexec_fn=small_files)
    assert done.returncode == 1
    assert "cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "answers.csv").read_text() == "old"


def started_program(run, photos, out):
    """The command in a process of its own, which has imported what it needs."""
    command = [sys.executable, "-c", PROGRAM, "predict", run.bundle, photos, "--batch", "4", "--out", out]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*map(str, command)], **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("form", "times"), [("csv", 20), ("parquet", 10)])
def test_36_killed_at_random_points_it_goes_on_and_gives_the_same_file(run, photos, tmp_path, small_parts, form, times):
    whole, killed = tmp_path / f"whole.{form}", tmp_path / f"killed.{form}"
    process, started = started_program(run, photos, whole), time.monotonic()
    assert process.wait() == 0
    seconds = time.monotonic() - started
    dice, kills, went_on, finished = random.Random(form), 0, 0, 0
    while kills < times or not (went_on and finished):
        assert kills < 10 * times, f"of {kills} killed commands {went_on} were gone on with, {finished} finished"
        process = started_program(run, photos, killed)
        try:
            said = process.communicate(timeout=dice.uniform(0, seconds))[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            said, kills = process.communicate()[1], kills + 1
        assert process.returncode in (0, -signal.SIGKILL), said
        went_on += "it goes on from there" in said
        if killed.exists():
            assert killed.read_bytes() == whole.read_bytes()
            killed.unlink()
            finished += 1
    predict(run, photos, killed)
    assert sorted(tmp_path.iterdir()) == [killed, whole]
