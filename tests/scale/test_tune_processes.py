"""kit tune in several processes, with kill -9, in a SQLite file and in a PostgreSQL server that the test starts."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from conftest import write_shapes

import kit

pytestmark = pytest.mark.slow
TRIALS = 3
ENDS = (
    "error rate on held-out images, which no trial saw:",
    "still runs: the process that ends last trains the winner",
    "another process trains the winner",
    "is finished: its winner was measured on the held-out images",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("images") / "shapes", 10)


@pytest.fixture
def command(images, light, tmp_path):
    """The command of a search of all layers, which takes about a second a trial; without epochs to prune."""
    fixed = ["--arch", light.arch, "--weights", light.weights, "--size", "32", "--batch", "4", "--device", "cpu"]
    searched = ["--search", "layers,rate,augment", "--trials", str(TRIALS)]
    words = ["tune", str(images), *fixed, "--workers", "0", *searched, "--no-onnx", "--no-examples"]
    return [sys.executable, "-m", "kit.cli.main", *words]


def started(command, *words, folder=None):
    return subprocess.Popen(
        [*command, *map(str, words)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
    )


def ended(processes):
    """What several processes printed, after they ended."""
    said = [process.communicate(timeout=900)[1] for process in processes]
    assert all(sum(words in text for words in ENDS) == 1 for text in said), said
    return said


def killed_in_a_trial(command, *words, folder=None):
    """Start a search, kill it after the head of its second trial was trained, and return what it had printed."""
    process = started(command, *words, folder=folder)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if sum(line.startswith("head: ") for line in lines) == 2:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return "".join(lines)


def check(study, said, folders):
    """One trial was lost, enough others ended, and one process alone has trained the winner."""
    states = [trial.state.name for trial in study.trials]
    assert states[:2] == ["COMPLETE", "FAIL"]
    assert states.count("FAIL") == 1
    assert "RUNNING" not in states
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) >= TRIALS
    winners = [folder for folder in folders if (folder / "best" / "result.json").is_file()]
    assert len(winners) == 1
    assert sum(ENDS[0] in text for text in said) == 1
    assert kit.bundle.load(winners[0] / "best").task == "classification"


def test_kill_9_loses_one_trial_and_two_processes_that_join_end_the_search(command, tmp_path):
    folder = tmp_path / "tune"
    assert "trial 0 (1 of 3): error rate" in killed_in_a_trial(command, "--out", folder)
    said = ended([started(command, "--out", folder) for _ in range(2)])
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'study.db'}")
    check(study, said, [folder])


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a server that listens on a socket in a temporary folder, as a user without rights."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    places = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), os.environ["PATH"]]  # Debian's, not in PATH
    initdb, control = (shutil.which(name, path=os.pathsep.join(places)) for name in ("initdb", "pg_ctl"))
    if not (initdb and control):
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="kit-pg-"))
    user = {}
    if os.geteuid() == 0:  # as root it does not start
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def run(*words):
        done = subprocess.run(
            words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, **user
        )
        return done.returncode

    data, options = folder / "data", f"-c listen_addresses='' -c unix_socket_directories={folder}"
    try:
        run(initdb, "-D", data, "-U", "kit", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        run(control, "-D", data, "-l", folder / "log", "-w", "-o", options, "start")
        try:
            yield f"postgresql://kit@/postgres?host={folder}"
        finally:
            run(control, "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_processes_with_folders_of_their_own_share_a_study_in_postgresql(command, tmp_path):
    hosts = [tmp_path / name for name in ("a", "b")]
    for host in hosts:
        host.mkdir()
    with postgresql() as url:
        words = ["--study", url, "--out", "tune"]
        assert "trial 0 (1 of 3): error rate" in killed_in_a_trial(command, *words, folder=hosts[0])
        said = ended([started(command, *words, folder=host) for host in hosts])
        study = optuna.load_study(study_name="tune", storage=url.replace("postgresql:", "postgresql+psycopg:"))
        check(study, said, [host / "tune" for host in hosts])
        assert len({tuple(trial.user_attrs["process"]) for trial in study.trials}) == 3
