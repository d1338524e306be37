"""The journal of decisions: nothing confirmed is lost, and two pages do not overwrite each other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from kit.clean.decisions import Conflict, Decision, Journal
from kit.errors import DataError, KitError, OutputError

TABLE = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "label": ["cat", "cat", "dog"]}).assign(
    split="train", group=["", "", "g1"]
)


@pytest.fixture
def csv(tmp_path) -> Path:
    return tmp_path / "photos-labels.csv"


def rows(csv: Path) -> dict[str, dict]:
    return pd.read_csv(csv, keep_default_na=False).set_index("path").to_dict("index")


def test_decisions_become_rows_that_labels_takes(csv):
    with Journal(csv) as journal:
        journal.add(Decision("a.jpg", "label", "dog", reason="looks like dog"))
        journal.add(Decision("b.jpg", "drop"))
        journal.add(Decision("c.jpg", "keep"))
        journal.write_csv(TABLE)
    found = rows(csv)
    assert (found["a.jpg"]["label"], found["a.jpg"]["old_label"], found["a.jpg"]["action"]) == ("dog", "cat", "label")
    assert found["a.jpg"]["reason"] == "looks like dog"
    assert found["a.jpg"]["when"].endswith("+00:00")
    assert (found["b.jpg"]["split"], found["b.jpg"]["action"]) == ("out", "drop")
    assert (found["c.jpg"]["label"], found["c.jpg"]["split"], found["c.jpg"]["action"]) == ("dog", "train", "keep")


def test_undo_returns_to_the_decision_before_and_a_second_start_goes_on(csv):
    with Journal(csv) as journal:
        for decision in (Decision("a.jpg", "label", "dog"), Decision("a.jpg", "drop"), Decision("a.jpg", "undo")):
            journal.add(decision)
    with Journal(csv) as journal:
        assert journal.label("a.jpg", "cat") == "dog"
        assert not journal.dropped("a.jpg")
        journal.add(Decision("a.jpg", "undo"))
        assert journal.current("a.jpg") is None
        journal.add(Decision("a.jpg", "undo"))  # there is nothing left to undo
        assert journal.label("a.jpg", "cat") == "cat"


def test_the_last_decision_is_the_one_that_is_undone(csv):
    with Journal(csv) as journal:
        images = ("a.jpg", "b.jpg")
        assert journal.last(images) is None
        for name in ("a.jpg", "b.jpg", "moved away.jpg"):
            journal.add(Decision(name, "keep", when="2026-01-01T00:00:00"))
        assert journal.last(images) == "b.jpg"
        journal.add(Decision("b.jpg", "undo"))
        assert journal.last(images) == "a.jpg"
        journal.add(Decision("a.jpg", "undo"))
        assert journal.last(images) is None


def test_a_page_that_did_not_see_a_decision_is_refused(csv):
    with Journal(csv) as journal:
        journal.add(Decision("a.jpg", "label", "dog"), seen=0)
        with pytest.raises(Conflict, match=r"a\.jpg was decided in another window"):
            journal.add(Decision("a.jpg", "drop"), seen=0)
        assert journal.add(Decision("a.jpg", "drop"), seen=1) == 2


def test_a_second_process_is_refused_with_the_fix(csv):
    with Journal(csv), pytest.raises(KitError, match="is being edited by another kit clean") as error, Journal(csv):
        pass
    assert "--out" in error.value.fix
    with Journal(csv):
        pass


def test_a_line_that_a_crash_cut_off_is_removed_and_a_damaged_one_is_named(csv):
    with Journal(csv) as journal:
        journal.add(Decision("a.jpg", "keep"))
    log = csv.with_suffix(".jsonl")
    log.write_bytes(log.read_bytes() + b'{"path": "b.j')
    with Journal(csv) as journal:
        assert journal.current("b.jpg") is None
        journal.add(Decision("b.jpg", "drop"))
    with Journal(csv) as journal:
        assert journal.dropped("b.jpg")
    log.write_bytes(b"nonsense\n" + log.read_bytes())
    with pytest.raises(DataError, match="line 1 is no JSON"), Journal(csv):
        pass


def test_unknown_actions_and_folders_that_are_missing_are_refused(csv):
    with Journal(csv) as journal, pytest.raises(DataError, match="action 'delete' is not known"):
        journal.add(Decision("a.jpg", "delete"))
    with pytest.raises(OutputError, match="there is no folder"):
        Journal(csv.parent / "none" / "x.csv")


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_kill_9_loses_no_confirmed_decision(csv):
    program = f"""
import itertools
from pathlib import Path
from kit.clean.decisions import Decision, Journal
with Journal(Path({str(csv)!r})) as journal:
    for number in itertools.count():
        journal.add(Decision(f"{{number}}.jpg", "keep"))
        print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    confirmed = [int(process.stdout.readline()) for _ in range(30)][-1]
    os.kill(process.pid, signal.SIGKILL)
    rest = process.communicate()[0].split()
    confirmed = max([confirmed, *map(int, rest[:-1])])  # the last number may be cut off
    with Journal(csv) as journal:
        assert all(journal.current(f"{number}.jpg") for number in range(confirmed + 1))
    lines = csv.with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines[1:]] == [f"{number}.jpg" for number in range(len(lines) - 1)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
def test_a_full_disk_refuses_the_decision_and_keeps_the_others(csv):
    program = f"""
import resource, signal
from pathlib import Path
from kit.clean.decisions import Decision, Journal
from kit.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Journal(Path({str(csv)!r})) as journal:
    journal.add(Decision("a.jpg", "keep"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (170, 170))
    try:
        journal.add(Decision("b.jpg", "label", "x" * 200))
    except OutputError as error:
        print(error.problem)
    assert journal.current("b.jpg") is None
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    with Journal(csv) as journal:
        assert journal.current("a.jpg")
        assert journal.current("b.jpg") is None


def test_a_csv_of_the_user_is_not_replaced(csv):
    csv.write_text("path,label,note\na.jpg,cat,mine\n")
    with pytest.raises(OutputError, match="was not written by kit clean"), Journal(csv):
        pass
    assert "mine" in csv.read_text()
    assert [path.name for path in csv.parent.iterdir()] == [csv.name]


def test_decisions_about_another_folder_are_refused(csv):
    with Journal(csv, "/a/photos") as journal:
        journal.add(Decision("1.jpg", "drop"))
    with pytest.raises(DataError, match="about /a/photos, not about /b/photos"), Journal(csv, "/b/photos"):
        pass
    with Journal(csv) as journal:
        assert journal.folder == "/a/photos"


@pytest.mark.parametrize(
    "line",
    [
        '{"path": "a.jpg", "action": "delete"}',
        '{"path": "a.jpg", "action": "label", "label": 5}',
        '{"path": "a.jpg", "action": "keep", "colour": "red"}',
        '{"path": "a.jpg"}',
        "[]",
        "7",
    ],
)
def test_a_line_written_by_hand_is_checked(csv, line):
    csv.with_suffix(".jsonl").write_text(f"\n{line}\n")
    with pytest.raises(DataError, match="line 2 is no decision"), Journal(csv):
        pass


def test_a_last_line_without_end_counts_where_it_is_complete(csv):
    csv.with_suffix(".jsonl").write_text('{"path": "a.jpg", "action": "keep"}\r\n{"path": "b.jpg", "action": "drop"}')
    with Journal(csv) as journal:
        journal.add(Decision("a.jpg", "drop"))
    with Journal(csv) as journal:
        assert journal.dropped("a.jpg")
        assert journal.dropped("b.jpg")


def test_groups_numbers_and_images_without_class_are_in_the_csv(csv):
    table = TABLE.assign(label=["1;2.5", "3;4", "5;6"])
    with Journal(csv) as journal:
        journal.add(Decision("a.jpg", "label", "1;2"))
        journal.write_csv(table, names=["label", "weight"])
        found = rows(csv)
        assert [found[name]["weight"] for name in table["path"]] == [2, 4, 6]
        assert found["c.jpg"]["group"] == "g1"
        journal.write_csv(TABLE.assign(label=["", "cat;dog", "dog"]))
        assert rows(csv)["b.jpg"]["label"] == "cat;dog"
        assert len(rows(csv)) == 3
