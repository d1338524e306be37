"""The head learns from features that the body computed once; then all layers train, as ever."""

from dataclasses import replace

import pytest
import torch

from kit import data, model, train
from kit.train.head_first import features_of, train_head
from kit.train.history import HEAD
from kit.train.precision import Precision, precision_for

EXACT = Precision("fp32", False, "")


def learner(shapes, recipe):
    train.seed_everything(recipe.seed)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    data.make_resident(learn.dls, recipe)
    return learn


def state(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_its_epochs_come_before_those_of_the_whole_network_and_in_place_of_frozen_ones(shapes, light):
    recipe = replace(light, head_first=3, freeze_epochs=2, epochs=2)
    history = train.fine_tune(learner(shapes, recipe), recipe)
    assert [row["phase"] for row in history.rows] == [HEAD, HEAD, HEAD, "whole", "whole"]
    assert len(history.steps) == history.ends[-1] == 5 * (18 // 4)


def test_nothing_but_the_head_changes_not_even_batch_norms_statistics(shapes, light):
    learn = learner(shapes, light)
    body, head = state(learn.model[0]), state(learn.model[1])
    train_head(learn, 2, 1e-2, EXACT, [train.History(quiet=True)])
    assert changed(body, state(learn.model[0])) == set()
    assert changed(head, state(learn.model[1])) == set(head)


def test_what_it_measures_on_features_is_what_the_whole_network_gives_on_images(shapes, light):
    learn, history = learner(shapes, light), train.History(quiet=True)
    train_head(learn, 2, 1e-2, EXACT, [history])
    with learn.no_bar(), learn.no_logging():
        loss, error_rate, _ = learn.validate()
    assert history.rows[-1]["valid_loss"] == pytest.approx(loss, abs=1e-5)
    assert history.rows[-1]["error_rate"] == error_rate


def test_features_are_what_the_head_is_given_of_every_training_image_augmented_once(shapes, light):
    learn = learner(shapes, replace(light, augment=False))
    learn.model.eval()
    features, targets = features_of(learn, learn.dls.train.new(shuffle=False, drop_last=False), EXACT)
    images, labels = zip(*learn.dls.train.new(shuffle=False, drop_last=False), strict=True)
    with torch.no_grad():
        expected = learn.model[1][:2](learn.model[0](torch.cat(images)))
    torch.testing.assert_close(features, expected.as_subclass(torch.Tensor))
    assert targets.tolist() == torch.cat(labels).tolist()
    assert len(features) == 18


@pytest.mark.slow
def test_a_network_without_feature_maps_gives_its_pooled_features(shapes, tiny):
    learn = learner(shapes, replace(tiny, arch="vit_tiny_patch16_224", size=224))
    features, _ = features_of(learn, learn.dls.valid, EXACT)
    assert features.shape == (6, 192)


def test_in_bf16_features_are_those_of_bf16_and_the_head_stays_in_fp32(shapes, light):
    recipe = replace(light, precision="bf16")
    learn = learner(shapes, recipe)
    learn.model.eval()
    exact, _ = features_of(learn, learn.dls.valid, EXACT)
    quick, _ = features_of(learn, learn.dls.valid, precision_for(learn, recipe))
    assert quick.dtype == torch.float32
    assert not torch.equal(quick, exact)
    torch.testing.assert_close(quick, exact, rtol=0.1, atol=0.1)


def test_the_same_seed_gives_the_same_weights_in_every_bit(shapes, light):
    recipe = replace(light, head_first=2)
    states = []
    for _ in range(2):
        learn = learner(shapes, recipe)
        train.fine_tune(learn, recipe)
        states.append(state(learn.model))
    assert changed(*states) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": "balanced", "label_smoothing": 0.1},
        {"sampler": "balanced"},
        {"mixup": 0.4},
        {"patience": 1, "epochs": 2},
        {"size": 64, "progressive": True},
        {"accumulate": 2},
    ],
    ids=str,
)
def test_it_goes_with_what_else_a_recipe_asks_for(changes, shapes, light):
    recipe = replace(light, head_first=2, **changes)
    history = train.fine_tune(learner(shapes, recipe), recipe)
    phases = [row["phase"] for row in history.rows]
    assert phases[:2] == [HEAD, HEAD]
    assert set(phases[2:]) == {"whole"}
    assert history.best_epoch > 2, "patience chooses among epochs of images"


def test_the_training_loss_of_the_recipe_is_the_heads_too(shapes, light):
    rows = []
    for smoothing in (0.0, 0.5):
        recipe = replace(light, head_first=1, label_smoothing=smoothing)
        rows.append(train.fine_tune(learner(shapes, recipe), recipe).steps[0]["loss"])
    assert rows[0] != rows[1]


def test_a_random_start_has_no_use_for_it(shapes, tiny, capsys):
    recipe = replace(tiny, head_first=5, freeze_epochs=1)
    history = train.fine_tune(learner(shapes, recipe), recipe)
    assert [row["phase"] for row in history.rows] == ["whole", "whole"]
    assert "a random start has nothing to freeze" in capsys.readouterr().err
