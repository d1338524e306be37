"""The rate finder: fastai's own suggestion, and afterwards not a bit is different."""

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fastai.vision.all import Callback, OptimWrapper, SuggestionMethod

from kit import data, model, train
from kit.data.images import open_image
from kit.errors import RecipeError, TrainingError
from kit.train import rates
from kit.train.rates import RateCurve, draw_rates, find_rate, rates_for


@pytest.fixture
def recipe(light):
    return light


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    monkeypatch.setattr(rates, "STEPS", 30)


def learner(shapes, recipe, **options):
    train.seed_everything(recipe.seed)
    return model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe, **options)


def bits(learn) -> dict:
    return {name: tensor.clone() for name, tensor in learn.model.state_dict().items()}


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def everything(learn, folder) -> dict:
    """All that a look for a rate might change, as plain values."""
    state = {name: tensor.numpy().tobytes() for name, tensor in learn.model.state_dict().items()}
    gradients = [parameter.grad is None for parameter in learn.model.parameters()]
    awake = [parameter.requires_grad for parameter in learn.model.parameters()]
    steps = repr(learn.opt.state_dict()) if learn.opt else None
    hypers = repr(list(learn.opt.hypers)) if learn.opt else None
    loaders = [(loader.rng.getstate(), loader.bs) for loader in learn.dls.loaders]
    generators = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())
    rest = (
        learn.model.training,
        learn.loss_func,
        [type(callback) for callback in learn.cbs],
        "forward" in vars(learn.model),
    )
    files = sorted(path.name for path in folder.rglob("*"))
    return {
        "state": state, "gradients": gradients, "awake": awake, "steps": steps, "hypers": hypers, "loaders": loaders,
        "generators": generators, "rest": rest, "files": files,
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"sampler": "balanced", "mixup": 0.4, "precision": "fp32"}], ids=str)
@pytest.mark.parametrize("trained_before", [False, True])
def test_looking_for_a_rate_changes_nothing(shapes, recipe, changes, trained_before, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = replace(recipe, **changes)
    learn = learner(shapes, recipe)
    if trained_before:
        train.fine_tune(learn, recipe)
    before = everything(learn, tmp_path)
    curve = find_rate(learn, recipe)
    assert 1e-7 < curve.suggestion < 10
    after = everything(learn, tmp_path)
    assert {name for name in before if before[name] != after[name]} == set()


def test_the_next_run_is_the_same_in_every_bit(shapes, recipe):
    without = learner(shapes, recipe)
    history = train.fine_tune(without, recipe)
    after = learner(shapes, recipe)
    find_rate(after, recipe)
    assert train.fine_tune(after, recipe).steps == history.steps
    assert same(bits(without), bits(after))


def test_rate_auto_trains_as_the_rate_that_it_found_would(shapes, recipe, capsys):
    auto = learner(shapes, replace(recipe, rate="auto"))
    chosen = train.fine_tune(auto, replace(recipe, rate="auto")).chosen["rate"]
    said = capsys.readouterr().err
    given = learner(shapes, recipe)
    train.fine_tune(given, replace(recipe, rate=chosen))
    assert same(bits(auto), bits(given))
    assert f"rate auto: {chosen:.2g}" in said
    assert rates_for(given, replace(recipe, rate="auto"))[1] == 100


def test_the_suggestion_is_fastais_own(shapes, recipe, tmp_path):
    recipe = replace(recipe, precision="fp32")
    ours = find_rate(learner(shapes, recipe), recipe)
    theirs = learner(shapes, recipe)
    theirs.path = tmp_path  # fastai keeps the weights in a file there
    theirs.freeze()
    theirs.model.to(memory_format=torch.channels_last)
    theirs.add_cb(ChannelsLast())
    with theirs.no_bar(), theirs.no_logging():
        suggestion = theirs.lr_find(num_it=30, show_plot=False, suggest_funcs=(SuggestionMethod.Valley,))
    assert ours.suggestion == suggestion.valley
    assert ours.losses == [float(loss) for loss in theirs.recorder.losses]


class ChannelsLast(Callback):
    def before_batch(self):
        self.learn.xb = tuple(x.contiguous(memory_format=torch.channels_last) for x in self.xb)


def test_a_loss_that_is_no_number_from_the_start_is_an_error_that_says_so(shapes, recipe):
    learn = learner(shapes, recipe, loss_func=lambda prediction, y: prediction.sum() * float("nan"))
    with pytest.raises(TrainingError, match="ended too soon: after 0 steps the loss was nan"):
        find_rate(learn, recipe)


def test_a_first_batch_with_a_low_loss_by_chance_does_not_end_the_search(shapes, recipe):
    seen = []

    def loss(prediction, y):
        seen.append(len(y))
        return torch.nn.functional.cross_entropy(prediction, y) * (0.01 if len(seen) == 1 else 1.0)

    curve = find_rate(learner(shapes, recipe, loss_func=loss), recipe)
    assert max(curve.losses) > 4 * curve.losses[0]
    assert len(curve.losses) == len(seen) >= 20


def test_an_optimiser_that_cannot_be_made_anew_is_refused(shapes, recipe):
    learn = learner(shapes, recipe)
    learn.opt_func = OptimWrapper(learn.model.parameters(), torch.optim.SGD, lr=0.1)
    with pytest.raises(RecipeError, match="an optimiser of its own parameters"):
        find_rate(learn, recipe)
    learn.opt_func = partial(OptimWrapper, opt=torch.optim.SGD)
    assert find_rate(learn, recipe).suggestion > 0


def test_the_curve_is_a_table_and_a_picture(tmp_path):
    curve = RateCurve([1e-4, 1e-3, 1e-2, 1e-1], [0.7, 0.6, 0.3, 0.9], 5e-3)
    assert curve.table().to_dict("list") == {"rate": curve.rates, "loss": curve.losses}
    draw_rates(curve, tmp_path / "rates.png")
    assert open_image(tmp_path / "rates.png").width > 400
