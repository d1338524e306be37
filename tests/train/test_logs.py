"""TensorBoard and Weights & Biases: asked for by name, refused before training where they are not installed."""

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


@pytest.mark.parametrize("log", ["tensorboard", "wandb"])
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
