"""Training begins on small images and ends on whole ones; what is measured is always whole."""

from dataclasses import replace

import pytest
import torch
from fastai.vision.all import Callback

from kit import data, model, train
from kit.errors import RecipeError
from kit.train.callbacks import downsize, progressive_resizing, side_at


class Sides(Callback):
    order = 99

    def __init__(self):
        self.seen = []

    def before_batch(self):
        self.seen.append((self.training, self.x.shape[-1]))


def sides(shapes, recipe) -> list[tuple[bool, int]]:
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    look = Sides()
    train.fine_tune(learn, recipe, cbs=[look])
    return look.seen


def test_sides_grow_from_half_to_whole_in_steps_of_16_pixels():
    found = [side_at(step / 100, 224) for step in range(101)]
    assert found[0] == 112
    assert found == sorted(found)
    assert all(side % 16 == 0 for side in found)
    assert found.index(224) == 75
    assert [side_at(0.5, size) for size in (16, 40, 100)] == [16, 32, 80]


def test_both_phases_together_go_from_half_to_whole_and_validation_is_whole(shapes, light):
    recipe = replace(light, size=64, epochs=3, progressive=True)
    seen = sides(shapes, recipe)
    grown = [side for training, side in seen if training]
    assert grown[0] == 32
    assert grown == sorted(grown)
    assert set(grown) == {32, 48, 64}
    assert {side for training, side in seen if not training} == {64}


def test_without_it_all_images_are_whole(shapes, tiny):
    assert {side for _, side in sides(shapes, replace(tiny, size=64))} == {64}


def test_the_same_seed_gives_the_same_weights_in_every_bit_and_others_than_whole_images_do(shapes, light):
    states = []
    for progressive in (True, True, False):
        recipe = replace(light, size=64, progressive=progressive)
        train.seed_everything(recipe.seed)
        learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
        train.fine_tune(learn, recipe)
        states.append(learn.model.state_dict())
    same = [all(torch.equal(value, other[name]) for name, value in states[0].items()) for other in states[1:]]
    assert same == [True, False]


def test_shrinking_averages_all_pixels():
    stripes = torch.arange(64).remainder(2).float().expand(1, 3, 64, 64)
    inner = downsize(stripes, 32)[..., 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.13, rtol=0)
    assert inner.mean() == pytest.approx(0.5, abs=0.01)


def test_a_network_that_cannot_take_small_images_is_refused_before_training(shapes, tiny):
    learn = model.learner(data.blocks(tiny).dataloaders(data.table(shapes)), tiny)

    def refuse(module, inputs):
        if inputs[0].shape[-1] < 64:
            raise ValueError("I take 64 pixels")

    learn.model.register_forward_pre_hook(refuse)
    with pytest.raises(RecipeError, match="begins with 32 x 32 pixels, which this network refuses .I take 64 pixels"):
        progressive_resizing(learn, 64, 1)
    assert learn.model.training
