"""The head learns from features that the body computed once; then all layers train, as ever."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.vision.all import TensorImage, Transform

import kit
from kit import bundle, data, model, train
from kit.train import head_first
from kit.train.callbacks import training_callbacks
from kit.train.head_first import Kept, features_of, train_head
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


def test_with_a_sampler_each_image_goes_through_the_body_once_and_is_drawn_by_its_weight(shapes, light):
    learn = learner(shapes, replace(light, sampler="balanced"))
    features, targets = features_of(learn, learn.dls.train.new(shuffle=False, drop_last=False), EXACT)
    assert sorted(targets.tolist()) == [0] * 6 + [1] * 6 + [2] * 6
    only = np.array([0.0] * 17 + [1.0])
    drawn = Kept(features, targets, 6, shuffle=True, weights=only)
    assert all(torch.equal(x, features[17:].expand(6, -1)) for x, _ in drawn)


def test_batches_that_make_a_step_together_do_so_here_too(shapes, light):
    recipe = replace(light, head_first=1, accumulate=2)
    history = train.fine_tune(learner(shapes, recipe), recipe)
    assert history.ends[0] == 18 // 8


class Autocast(Transform):
    """Sees whether images are augmented in another precision."""

    order, seen = 98, set()

    def encodes(self, x: TensorImage):
        self.seen.add(torch.is_autocast_enabled("cpu"))
        return x


def test_in_bf16_the_body_alone_computes_in_it(shapes, light):
    recipe = replace(light, precision="bf16")
    learn = learner(shapes, recipe)
    learn.dls.train.after_batch.add(Autocast())
    features_of(learn, learn.dls.train, precision_for(learn, recipe))
    assert Autocast.seen == {False}


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


def test_the_best_epoch_is_one_of_images():
    history = train.History(quiet=True)
    for phase, loss in ((HEAD, 0.1), ("whole", 0.9), ("whole", 0.5)):
        history.rows.append({"epoch": len(history.rows) + 1, "phase": phase, "valid_loss": loss})
    assert history.best_epoch == 3


def test_broken_off_in_it_the_run_is_measured_and_saved(shapes, light, tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.History, "after_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        kit.fine_tune(shapes, light, head_first=3, onnx=False, out=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stopped"] == "stopped by Ctrl-C"
    assert bundle.load(tmp_path / "run").predict(next(shapes.rglob("*.png")))[0].label


def test_where_memory_does_not_suffice_it_begins_again_with_half_the_batch(shapes, light, monkeypatch):
    asked, compute = [], head_first.features_of

    def crowded(learn, loader, precision):
        asked.append(loader.bs)
        if len(asked) == 1:
            raise RuntimeError("out of memory")
        return compute(learn, loader, precision)

    monkeypatch.setattr(head_first, "features_of", crowded)
    recipe = replace(light, head_first=1)
    history = train.fine_tune(learner(shapes, recipe), recipe)
    assert asked[:2] == [4, 2]
    assert history.chosen["halvings"] == 1
    assert history.ends[0] == 18 // 4, "a step sees as many images as before"


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
    (grown,) = training_callbacks(learner(shapes, replace(recipe, size=64)), replace(recipe, size=64, progressive=True))
    assert grown.epochs == 2
