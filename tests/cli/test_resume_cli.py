"""kit fine-tune --resume and kit runs."""

import json
from dataclasses import replace

import pytest
from fastai.vision.all import Callback
from typer.testing import CliRunner

import kit
from kit.cli.main import application
from kit.errors import OutputError, RecipeError
from kit.files import held
from kit.unfinished import list_runs


class Stop(Callback):
    order = 2000

    def after_epoch(self):
        raise KeyboardInterrupt


@pytest.fixture
def folder(shapes, light, run, tmp_path):
    """runs/ with a finished, a stopped and a running one."""
    (tmp_path / "done").symlink_to(run.folder)
    kit.fine_tune(shapes, replace(light, layers="head"), out=tmp_path / "head", onnx=False)
    job = {"source": str(shapes), "examples": False, "onnx": False, "given": []}
    recipe = replace(light, epochs=2)
    stopped_at_first_epoch(job | {"recipe": recipe.to_json()}, shapes, recipe, tmp_path / "stopped")
    (tmp_path / "running").mkdir()
    (tmp_path / "other").mkdir()
    return tmp_path


def stopped_at_first_epoch(job, images, recipe, folder):
    from kit.unfinished import JOB

    with pytest.raises(KeyboardInterrupt):
        kit.fine_tune(images, recipe, out=folder, onnx=False, examples=False, cbs=[Stop()])
    path = folder / "checkpoint" / JOB
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | job))  # as if it had been started by the command


def invoke(*arguments):
    return CliRunner().invoke(application(), list(map(str, arguments)))


def test_runs_are_listed_with_state_result_and_the_command_that_goes_on(folder):
    with held(folder / "running"):
        found = {line.split()[0]: line for line in invoke("runs", folder).stdout.splitlines()}
        states = {one.folder: one.state for one in list_runs(folder)}
    assert states == {
        str(folder / name): state
        for name, state in {"done": "done", "head": "done", "running": "running", "stopped": "stopped"}.items()
    }
    assert "error_rate 0." in found[str(folder / "done")]
    on = f"kit fine-tune --resume {folder / 'stopped'}"
    assert found[str(folder / "stopped")].endswith(f"stopped  frozen: 1 of 1 epochs, 4 steps in all  {on}")
    told = {one["folder"]: one for one in json.loads(invoke("runs", folder, "--json").stdout)}
    assert told[str(folder / "stopped")]["command"] == on
    assert told[str(folder / "done")]["command"] is None
    assert invoke(*on.split()[1:]).exit_code == 0
    assert [one.state for one in list_runs(folder)] == ["done", "done", "done"]
    assert len((folder / "stopped" / "history.csv").read_text().splitlines()) == 4


def test_without_runs_it_is_told(tmp_path):
    assert invoke("runs", tmp_path).stdout == f"no runs in {tmp_path}\n"
    assert isinstance(invoke("runs", tmp_path / "nowhere").exception, OutputError)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--resume", "run", "--epochs", "3"], "--epochs has no effect"),
        (["photos", "--resume", "run", "--out", "b"], "FOLDER, --out has no effect"),
        ([], "there is nothing to train on"),
        (["photos", "--allow-changed-data"], "--allow-changed-data has no effect without --resume"),
    ],
)
def test_arguments_without_effect_are_refused(arguments, problem):
    error = invoke("fine-tune", *arguments).exception
    assert isinstance(error, RecipeError)
    assert problem in error.problem
