"""`kit doctor` as a person or a script runs it, on this machine and on one whose torch is broken."""

import json
import os
import pty
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

COMMAND = [sys.executable, "-m", "kit.cli.main", "doctor"]


def doctor(*options: str, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "200"} | variables
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, env=environment)


@pytest.fixture
def broken(tmp_path) -> str:
    """A folder for PYTHONPATH whose torch cannot find its cuDNN."""
    (tmp_path / "torch").mkdir()
    text = "raise ImportError('libcudnn.so.9: cannot open shared object file: No such file or directory')\n"
    (tmp_path / "torch" / "__init__.py").write_text(text)
    return str(tmp_path)


def test_a_torch_that_cannot_be_imported_is_a_line_with_its_fix_and_exit_code_1(broken):
    done = doctor(PYTHONPATH=broken)
    assert done.returncode == 1
    assert done.stderr == ""
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("wrong  cuDNN")]
    assert "libcudnn.so.9 is missing or of another version; torch brings its own" in line
    assert re.search(r"; fix: \S+ (-m )?pip install", line)
    assert re.fullmatch(r"[1-9]\d* wrong, \d+ note, \d+ fine", done.stdout.splitlines()[-1])


def test_programs_get_findings_and_facts_as_json(broken):
    done = doctor("--json", PYTHONPATH=broken)
    values = json.loads(done.stdout)
    assert done.returncode == 1
    assert values["wrong"] == len([one for one in values["findings"] if one["verdict"] == "wrong"]) >= 1
    assert values["facts"]["torch"]["failed"] == "torch"
    assert values["facts"]["hosts"] is None


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo terminal")
def test_on_a_terminal_it_says_what_takes_time_and_shows_fixes_on_their_own_lines(broken):
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": broken, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(COMMAND, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while piece := read(ours):
            shown += piece
    os.close(ours)
    text = re.sub(r"\x1b\[[\d;]*m", "", shown.decode())
    assert process.returncode == 1
    assert "importing torch and fastai to see whether they work; it takes some seconds" in text
    assert re.search(r"\n +fix: \S+ pip (install|uninstall) |\n +fix: \S+ -m pip (install|uninstall) ", text)


def read(terminal: int) -> bytes:
    """What comes next; a pseudo terminal whose other end is closed says so with an error on Linux."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


@pytest.mark.slow
def test_on_this_machine_torch_imports_and_every_line_has_its_verdict():
    done = doctor("--json")
    values = json.loads(done.stdout)
    torch = values["facts"]["torch"]
    assert (torch["done"], torch["failed"]) == (["torch", "torchvision", "fastai", "gpu"], "")
    assert torch["version"].partition("+")[0] == version("torch").partition("+")[0]
    named = {one["name"] for one in values["findings"]}
    assert {"Python", "packages", "imports", "GPU", "precision", "cores", "memory", "kit's files", "network"} <= named
    assert all(bool(one["fix"]) == (one["verdict"] != "fine") for one in values["findings"])
    assert done.returncode == (1 if values["wrong"] else 0)
    plain = doctor().stdout.splitlines()
    assert len(plain) == len(values["findings"]) + 1
