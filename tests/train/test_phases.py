"""Fine-tuning: fastai's own phases, recorded, quiet, and the same in every bit for the same seed."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from fastai.vision.all import Callback, ProgressCallback

from kit import data, model, train
from kit.data.images import open_image
from kit.errors import RecipeError
from kit.train.history import draw_curves
from kit.train.rates import rates_for


def trained(shapes, recipe, **kwargs):
    train.seed_everything(recipe.seed)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    return learn, train.fine_tune(learn, recipe, **kwargs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_weights_in_every_bit(shapes, light, precision):
    recipe = replace(light, precision=precision)
    first, _ = trained(shapes, recipe)
    second, _ = trained(shapes, recipe)
    other, _ = trained(shapes, replace(recipe, seed=43))
    states = [learn.model.state_dict() for learn in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_it_is_fastais_fine_tune_in_every_bit(shapes, tiny):
    recipe = replace(tiny, arch="resnet18", weights="bundled", freeze_epochs=1, precision="fp32")
    recipe = replace(recipe, rate=2e-3, lr_mult=100, cache="none")  # the same loaders too
    ours, _ = trained(shapes, recipe)
    train.seed_everything(recipe.seed)
    theirs = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    theirs.model.to(memory_format=torch.channels_last)
    with theirs.no_bar(), theirs.no_logging():
        theirs.fine_tune(1, 2e-3, cbs=[ChannelsLast()])
    state = theirs.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.model.state_dict().items())


@pytest.mark.parametrize(("weights", "expected"), [("bundled", (5e-3, 10)), ("none", (2e-3, 100))])
def test_the_rates_suit_what_was_started_from_unless_the_recipe_says_otherwise(shapes, tiny, weights, expected):
    recipe = replace(tiny, arch="resnet18", weights=weights)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    assert rates_for(learn, recipe) == expected
    assert rates_for(learn, replace(recipe, rate=1e-4)) == (1e-4, expected[1])
    assert rates_for(learn, replace(recipe, lr_mult=3)) == (expected[0], 3)


class ChannelsLast(Callback):
    def before_batch(self):
        self.learn.xb = tuple(x.contiguous(memory_format=torch.channels_last) for x in self.xb)


def test_the_body_is_frozen_first_and_then_awake(shapes, light):
    learn, history = trained(shapes, replace(light, freeze_epochs=2, epochs=1))
    assert [row["phase"] for row in history.rows] == ["frozen", "frozen", "whole"]
    assert [row["epoch"] for row in history.rows] == [1, 2, 3]
    assert set(history.rows[0]) == {
        "epoch", "phase", "train_loss", "valid_loss", "error_rate", "accuracy", "seconds",
    }  # fmt: skip
    assert len(history.steps) == 3 * (18 // 4)
    assert isinstance(history.table(), pd.DataFrame)
    assert any(isinstance(callback, ProgressCallback) for callback in learn.cbs)


def test_a_random_start_is_not_frozen_and_says_so(shapes, tiny, capsys):
    _, history = trained(shapes, replace(tiny, freeze_epochs=1, epochs=2))
    assert [row["phase"] for row in history.rows] == ["whole"] * 3
    assert "a random start has nothing to freeze" in capsys.readouterr().err


def test_a_log_gets_one_line_an_epoch_and_no_bars(shapes, tiny, capsys):
    trained(shapes, replace(tiny, epochs=2))
    said = capsys.readouterr()
    assert said.out == ""
    assert len([line for line in said.err.splitlines() if "whole" in line]) == 2
    assert "\r" not in said.err


def test_callbacks_and_options_of_fastai_pass_through(shapes, light):
    class Count(Callback):
        batches = 0

        def after_batch(self):
            Count.batches += self.training

    _, history = trained(shapes, light, cbs=[Count()], lr_mult=10)
    assert Count.batches == len(history.steps) == 8


def test_the_curves_are_a_picture(shapes, tiny, tmp_path):
    _, history = trained(shapes, tiny)
    draw_curves(history, tmp_path / "curves.png")
    assert open_image(tmp_path / "curves.png").width > 400


def test_a_recipe_of_other_data_than_the_learner_has_is_refused_and_training_fields_may_differ(shapes, tiny):
    train.seed_everything(tiny.seed)
    learn = model.learner(data.blocks(tiny).dataloaders(data.table(shapes)), tiny)
    expected = rf"the learner was made with another recipe: size={2 * tiny.size}, not {tiny.size}"
    with pytest.raises(RecipeError, match=expected):
        train.fine_tune(learn, replace(tiny, size=2 * tiny.size))
    with pytest.raises(RecipeError, match="change fields of training only"):
        train.fine_tune(learn, replace(tiny, layers="head"))
    train.fine_tune(learn, replace(tiny, epochs=2))
    assert learn.spec.recipe.epochs == 2
