"""Two processes that torchrun starts train as one: the same table, gradients, metrics, and one run folder."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trained_together import done

import kit
from kit.train.checkpoint import checkpoints, read_checkpoint

PROGRAM = Path(__file__).with_name("trained_together.py")
ALWAYS = 1e-9  # minutes between checkpoints: one after each batch
ODD = {"mixup": 0.4, "progressive": True, "accumulate": 2, "patience": 2, "label_smoothing": 0.1, "clip": 0.5}
pytestmark = pytest.mark.slow  # each start of two processes imports torch and fastai twice


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
ACCELERATE += ("--mixed_precision", "no", "--dynamo_backend", "no")


def launched(*words: str, launcher: tuple[str, ...] = TORCHRUN) -> subprocess.CompletedProcess:
    """The launcher after two processes have ended. Both are here, whatever this machine calls itself."""
    command = [sys.executable, "-m", *launcher, *words]
    network = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    environment = {"OMP_NUM_THREADS": "1"} | network | dict(os.environ)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def together(jobs: list[dict], launcher: tuple[str, ...] = TORCHRUN) -> dict[str, list[dict]]:
    """The results of both processes for each job."""
    ended = launched(str(PROGRAM), json.dumps(jobs), launcher=launcher)
    assert ended.returncode == 0, ended.stderr
    return {job["name"]: [result(job, rank) for rank in range(2)] for job in jobs}


def result(job: dict, rank: int) -> dict:
    return torch.load(f"{job['folder']}/{job['name']}-{rank}.pt", weights_only=False)


def job(name, images, recipe, folder, **more):
    return {"name": name, "images": str(images), "recipe": recipe.to_json(), "folder": str(folder)} | more


@pytest.fixture(scope="module")
def recipe(light):
    """All layers after a linear head, with batch norms in evaluation mode, and without random augmentation."""
    return replace(light, layers="auto", augment=False, epochs=2, batch=5, precision="fp32")


@pytest.fixture(scope="module")
def found(shapes, recipe, light, tmp_path_factory):
    """Runs of two processes."""
    folder = tmp_path_factory.mktemp("together")
    odd = replace(light, epochs=3, workers=1, cache="none", **ODD)
    poisoned = job("poisoned", shapes, replace(light, epochs=2), folder, poison=3)
    return together([poisoned, job("plain", shapes, recipe, folder), job("odd", shapes, odd, folder)])


@pytest.fixture(scope="module")
def alone(shapes, recipe, tmp_path_factory):
    """The run of one process."""
    return done(**job("plain", shapes, recipe, tmp_path_factory.mktemp("alone")))


def test_the_gradient_of_the_first_step_is_that_of_one_process_with_the_whole_batch(found, alone):
    first, second = (result["gradient"] for result in found["plain"])
    assert all(map(torch.equal, first, second))
    flat = [torch.cat([one.flatten() for one in part]) for part in (first, alone["gradient"])]
    assert float((flat[0] - flat[1]).norm() / flat[1].norm()) < 1e-4
    assert first[0].norm() > 0


def test_table_choices_losses_and_predictions_are_those_of_one_process(found, alone):
    for result in found["plain"]:
        assert result["table"] == alone["table"]
        assert result["chosen"]["batch"] == alone["chosen"]["batch"] == 5
        assert result["chosen"]["layers"]["kept"] == "whole"
        assert result["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        for row, other in zip(result["rows"], alone["rows"], strict=True):
            assert row.pop("phase") == other["phase"]
            assert row == pytest.approx({name: other[name] for name in row}, rel=1e-3)
        assert result["n"] == alone["n"]


@pytest.mark.parametrize("name", ["plain", "odd"])
def test_all_processes_have_the_same_weights_and_figures_and_there_is_one_run_folder(found, name):
    first, second = found[name]
    assert all(map(torch.equal, first["weights"], second["weights"]))
    assert [first[key] for key in ("rows", "losses", "n", "predictions", "folder")] == [
        second[key] for key in ("rows", "losses", "n", "predictions", "folder")
    ]
    folder = Path(first["folder"])
    assert [path.name for path in folder.parent.iterdir() if path.is_dir() and path.name == name] == [name]
    assert not (folder / "checkpoint").exists()
    told = json.loads((folder / "recipe.json").read_text())["chosen"]
    assert told["processes"] == 2
    kit.bundle.load(folder)


def test_a_loss_that_is_not_finite_in_one_process_stops_all_before_the_step(found):
    first, second = found["poisoned"]
    assert first["error"] == second["error"]
    assert first["error"].startswith("the loss became nan at step 3 ")


@pytest.fixture(scope="module")
def stopped(shapes, light, tmp_path_factory):
    """A run of two processes of which one was killed in its sixth batch, the folder, and what was printed."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe = replace(light, epochs=2, checkpoint_every=ALWAYS)
    jobs = [job("whole", shapes, recipe, folder), job("run", shapes, recipe, folder, kill=6)]
    return folder, jobs, launched(str(PROGRAM), json.dumps(jobs))


def test_a_killed_process_ends_all_with_one_line(stopped):
    folder, _, ended = stopped
    assert ended.returncode != 0
    assert ended.stderr.count("another of the 2 processes of this run has ended") == 1
    assert f"--resume {folder / 'run'}" in ended.stderr


def test_a_stopped_run_goes_on_in_one_process_from_the_same_weights(stopped, tmp_path):
    folder, jobs, _ = stopped
    shutil.copytree(folder / "run", tmp_path / "run")
    kept = read_checkpoint(checkpoints(tmp_path / "run" / "checkpoint")[-1])
    resumed = done(**jobs[1] | {"folder": str(tmp_path), "kill": 0, "resume": True})
    assert all(map(torch.equal, resumed["begun with"], kept["weights"].values()))
    whole = result(jobs[0], 0)
    assert len(resumed["losses"]) == len(whole["losses"])
    assert resumed["losses"][:5] == whole["losses"][:5]
    assert resumed["table"] == whole["table"]


def test_a_stopped_run_goes_on_with_the_same_number_of_processes_in_every_bit(stopped):
    _, jobs, _ = stopped
    whole = result(jobs[0], 0)
    resumed = together([jobs[1] | {"kill": 0, "resume": True}], ACCELERATE)["run"][0]
    assert all(map(torch.equal, resumed["weights"], whole["weights"]))
    assert resumed["losses"] == whole["losses"]
