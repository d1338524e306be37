"""TensorBoard, Weights & Biases and MLflow: asked for by name, refused before training where they are not installed."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fastai.vision.all import Callback

import kit
from kit import data, model, train
from kit.errors import RecipeError


@pytest.fixture
def recipe(light):
    return light


def trained(shapes, recipe, **options):
    train.seed_everything(recipe.seed)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    train.fine_tune(learn, recipe, **options)
    return learn.model.state_dict()


@pytest.mark.parametrize("log", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_with_its_command_before_anything_is_read(log, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, log, None)
    with pytest.raises(RecipeError, match=f"log={log} needs the package {log}: ") as caught:
        kit.fine_tune("nowhere", log=log, out=tmp_path / "run")
    assert caught.value.fix == f"pip install {log}"
    assert list(tmp_path.iterdir()) == []


class FakeWandb(ModuleType):
    """As much of wandb as fastai's callback touches."""

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("wandb")
        self.run, self.rows, self.started, self.finished = None, [], [], []
        self.config = SimpleNamespace(update=lambda *args, **kwargs: None)

    def init(self, **options):
        torch.rand(1)
        self.started.append(options)
        self.run = SimpleNamespace(step=0, finish=lambda exit_code: self.finished.append(exit_code))
        return self.run

    def log(self, values, step=None):
        self.rows.append(values)


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delitem(sys.modules, "fastai.callback.wandb", raising=False)
    yield fake
    sys.modules.pop("fastai.callback.wandb", None)


def test_wandb_gets_the_recipe_and_every_step_and_changes_no_bit(shapes, recipe, wandb, tmp_path, capsys):
    plain = trained(shapes, recipe)
    logged = trained(shapes, replace(recipe, log="wandb"), log_folder=tmp_path)
    assert all(torch.equal(plain[name], logged[name]) for name in plain)
    (options,) = wandb.started
    assert options["config"]["arch"] == recipe.arch
    assert (options["name"], options["dir"]) == (tmp_path.name, str(tmp_path))
    assert len([row for row in wandb.rows if "train_loss" in row]) == 8
    assert len([row for row in wandb.rows if "valid_loss" in row]) == 2
    assert wandb.finished == [0]
    assert capsys.readouterr().out == ""


def test_wandb_that_cannot_start_stops_before_training(shapes, recipe, wandb):
    def refuse(**options):
        raise wandb.Error("api_key not configured")

    wandb.init = refuse
    with pytest.raises(RecipeError, match="log=wandb: api_key not configured") as caught:
        trained(shapes, replace(recipe, log="wandb"))
    assert "WANDB_MODE=offline" in caught.value.fix


def test_a_run_of_wandb_is_closed_as_failed_when_training_is(shapes, recipe, wandb):
    with pytest.raises(ZeroDivisionError):
        trained(shapes, replace(recipe, log="wandb"), cbs=[Fail()])
    assert wandb.finished == [1]


class Fail(Callback):
    def before_train(self):
        raise ZeroDivisionError("on purpose")


def test_tensorboard_gets_a_folder_a_phase_and_changes_no_bit(shapes, recipe, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = trained(shapes, recipe)
    logged = trained(shapes, replace(recipe, log="tensorboard"), log_folder=tmp_path)
    assert all(torch.equal(plain[name], logged[name]) for name in plain)
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["frozen", "whole"]
    events = EventAccumulator(str(tmp_path / "tensorboard" / "whole")).Reload()
    assert {"train_loss", "valid_loss", "error_rate", "lr_0", "lr_2"} <= set(events.Tags()["scalars"])


@pytest.fixture(scope="module")
def mlflow_database(tmp_path_factory):
    """An empty database of MLflow, which takes seconds to make."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install mlflow-skinny sqlalchemy alembic")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    yield mlflow
    mlflow.set_tracking_uri(before)


@pytest.fixture
def mlflow(mlflow_database, tmp_path):
    """MLflow with a new experiment."""
    place = {"artifact_location": str(tmp_path / "artifacts")}
    mlflow_database.set_experiment(experiment_id=mlflow_database.create_experiment(str(tmp_path), **place))
    return mlflow_database


def one_run(mlflow):
    (run,) = mlflow.search_runs(output_format="list")
    return run


def history_of(mlflow, run, name):
    return [(one.step, one.value) for one in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]


@pytest.mark.slow
def test_mlflow_gets_recipe_epochs_steps_figures_bundle_and_report(shapes, recipe, mlflow, tmp_path):
    done = kit.fine_tune(shapes, replace(recipe, log="mlflow"), out=tmp_path / "run")
    run = one_run(mlflow)
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["arch"] == recipe.arch
    rows = [(row["epoch"], row["valid_loss"]) for row in done.history.rows]
    assert history_of(mlflow, run, "valid_loss") == rows
    assert history_of(mlflow, run, "loss") == [(step["step"], step["loss"]) for step in done.history.steps]
    assert run.data.metrics["result/error_rate"] == done.error_rate.value
    names = {one.path for one in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert names == {"bundle", "report.html", "result.json", "recipe.json"}
    bundle = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="bundle")
    path = next(shapes.rglob("*.png"))
    assert kit.bundle.load(bundle).predict(path)[0] == kit.bundle.load(done.folder).predict(path)[0]


@pytest.mark.slow
def test_mlflow_gets_the_row_of_a_head_from_features(shapes, quick, mlflow, tmp_path):
    done = kit.fine_tune(shapes, replace(quick, log="mlflow"), out=tmp_path / "run", onnx=False)
    assert history_of(mlflow, one_run(mlflow), "valid_loss") == [(0, done.history.rows[0]["valid_loss"])]


@pytest.mark.slow
def test_mlflow_goes_on_with_the_run_of_a_training_that_was_stopped(shapes, recipe, mlflow, tmp_path):
    told = replace(recipe, log="mlflow", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        kit.fine_tune(shapes, told, out=tmp_path / "run", onnx=False, cbs=[Interrupted()])
    assert one_run(mlflow).info.status == "KILLED"
    whole = kit.resume(tmp_path / "run", cbs=[])
    run = one_run(mlflow)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history_of(mlflow, run, "valid_loss")] == [1, 2, 3]
    assert history_of(mlflow, run, "loss") == [(step["step"], step["loss"]) for step in whole.history.steps]


class Interrupted(Callback):
    """Ctrl-C in the second epoch of all layers."""

    def before_batch(self):
        if self.training and self.epoch == 1 and not self.opt.frozen_idx:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_mlflow_logs_into_the_callers_run_and_changes_no_bit(shapes, recipe, mlflow):
    plain = trained(shapes, recipe)
    with mlflow.start_run(run_name="mine"):
        logged = trained(shapes, replace(recipe, log="mlflow"))
        assert mlflow.active_run().info.run_name == "mine"
    assert all(torch.equal(plain[name], logged[name]) for name in plain)
    assert len(history_of(mlflow, one_run(mlflow), "loss")) == 8


@pytest.mark.slow
def test_mlflow_that_cannot_start_stops_before_training(shapes, recipe, mlflow):
    good = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("nosuch://place")
    with pytest.raises(RecipeError, match="log=mlflow: .*nosuch"):
        trained(shapes, replace(recipe, log="mlflow"))
    mlflow.set_tracking_uri(good)
