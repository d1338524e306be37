"""Transfer without harm: the head from features first, all layers only where a trial says that they are not worse."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import kit
from kit import bundle, data, evaluate, model, train
from kit.errors import RecipeError, TrainingError
from kit.train import transfer as module
from kit.train.callbacks import Stop
from kit.train.transfer import Trial, inner_learner, targets_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))


def learner(shapes, recipe, **kwargs):
    train.seed_everything(recipe.seed)
    return model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe, **kwargs)


def state(network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(before, after) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


BETTER, WORSE = Trial(5, 1.0, 0.5, 0.1, 3, 1), Trial(5, 1.0, 2.0, 0.1, 3, 4)


def decided(monkeypatch, trial: Trial) -> None:
    kept = "whole" if trial.better else "head"
    monkeypatch.setattr(module, "_decide", lambda *_: (kept, str(trial), trial))


def test_a_trial_keeps_all_layers_only_where_the_loss_is_clearly_lower_and_no_more_images_are_wrong():
    assert BETTER.better
    assert Trial(5, 1.0, 0.5, 0.4, 3, 3).better
    assert not WORSE.better
    assert not Trial(5, 1.0, 0.5, 0.6, 3, 1).better
    assert not Trial(5, 1.0, 0.5, 0.1, 3, 4).better
    assert not Trial(5, 1.0, float("nan"), 0.1, 3, 2).better
    assert Trial(5, 1.0, 0.5, 0.1, None, None).better
    expected = "on 5 held-out training images, 1 wrong against 3, loss 0.5 against 1 (standard error 0.1)"
    assert str(BETTER) == expected


def test_with_the_head_alone_the_body_stays_as_it_was_and_nothing_takes_a_step(shapes, quick):
    learn = learner(shapes, quick)
    before = state(learn.model[0])
    history = train.fine_tune(learn, quick)
    assert same(before, state(learn.model[0]))
    assert [row["phase"] for row in history.rows] == ["head"]
    assert history.steps == []
    assert history.chosen["layers"] == {"kept": "head", "because": "as asked", "trial": None}


def test_all_trains_the_head_and_then_all_layers_without_a_trial(shapes, quick):
    recipe = replace(quick, layers="all", epochs=2)
    learn = learner(shapes, recipe)
    before = state(learn.model[0])
    history = train.fine_tune(learn, recipe)
    assert not same(before, state(learn.model[0]))
    assert [row["phase"] for row in history.rows] == ["head", "whole", "whole"]
    assert history.chosen["layers"] == {"kept": "whole", "because": "as asked", "trial": None}


def test_its_line_says_of_the_validation_images_what_the_whole_network_says(shapes, quick):
    learn = learner(shapes, quick)
    (row,) = train.fine_tune(learn, quick, history=train.History(quiet=True)).rows
    with learn.no_bar(), learn.no_logging():
        loss, error_rate, _ = learn.validate()
    assert row["valid_loss"] == pytest.approx(loss, abs=1e-5)
    assert row["error_rate"] == error_rate


def test_the_result_is_what_the_network_predicts_of_the_images(shapes, quick):
    learn = learner(shapes, quick)
    train.fine_tune(learn, quick, history=train.History(quiet=True))
    with learn.no_bar(), learn.no_logging():
        expected, _ = learn.get_preds()
    np.testing.assert_allclose(evaluate.evaluate(learn).probabilities, expected.numpy(), atol=1e-5)


def test_all_layers_train_where_the_trial_says_so_and_batch_norms_keep_their_statistics(shapes, quick, monkeypatch):
    decided(monkeypatch, BETTER)
    recipe = replace(quick, layers="auto", epochs=2)
    learn = learner(shapes, recipe)
    before = state(learn.model)
    history = train.fine_tune(learn, recipe)
    after = state(learn.model)
    assert [row["phase"] for row in history.rows] == ["head", "whole", "whole"]
    assert [row["epoch"] for row in history.rows] == [0, 1, 2]
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {name for name in before if "running_" in name or "num_batches" in name}
    assert history.chosen["layers"]["trial"]["whole_mistakes"] == 1
    assert history.chosen["lr_mult"] == 1


def test_where_the_trial_says_that_they_are_worse_the_body_stays_as_it_was(shapes, quick, monkeypatch, capsys):
    decided(monkeypatch, WORSE)
    recipe = replace(quick, layers="auto")
    learn = learner(shapes, recipe)
    before = state(learn.model[0])
    history = train.fine_tune(learn, recipe)
    assert same(before, state(learn.model[0]))
    assert history.chosen["layers"]["kept"] == "head"
    assert "on 5 held-out training images, 4 wrong against 3" in capsys.readouterr().err


def test_the_trial_sees_training_images_alone_and_changes_nothing_of_the_learner(shapes, quick):
    learn = learner(shapes, quick)
    before, held = state(learn.model), np.arange(18) % 5 == 0
    inner = inner_learner(learn, held)
    paths = learn.dls.train_ds.items["path"]
    assert inner.dls.train_ds.items["path"].tolist() == paths[~held].tolist()
    assert inner.dls.valid_ds.items["path"].tolist() == paths[held].tolist()
    ours, theirs = inner.dls.train.images, learn.dls.train.images
    assert ours.pixels is theirs.pixels  # decoded once for both
    assert all(np.array_equal(ours[place], theirs[number]) for place, number in enumerate(np.flatnonzero(~held)))
    train.fine_tune(inner, replace(quick, layers="auto"), history=train.History(quiet=True))
    assert same(before, state(learn.model))


def test_a_real_trial_compares_both_on_the_held_out_training_images(shapes, quick, monkeypatch):
    monkeypatch.setattr(module, "MIN_MISTAKES", 0)
    recipe = replace(quick, layers="auto")
    layers = train.fine_tune(learner(shapes, recipe), recipe).chosen["layers"]
    trial = Trial(**layers["trial"])
    assert trial.n == 4
    assert (layers["kept"] == "whole") == trial.better
    assert 0 <= trial.whole_mistakes <= trial.n


def test_where_the_head_makes_no_mistake_nothing_could_be_better(shapes, quick, monkeypatch):
    recipe = replace(quick, layers="auto")
    monkeypatch.setattr(module, "MIN_MISTAKES", 1000)
    layers = train.fine_tune(learner(shapes, recipe), recipe).chosen["layers"]
    assert layers["kept"] == "head"
    assert layers["because"].endswith("held-out training images wrong, which leaves nothing to improve")


def test_a_trial_that_diverges_keeps_the_head(shapes, quick, monkeypatch):
    def diverges(*_):
        raise Stop(TrainingError("the loss became nan", fix="a lower rate"))

    monkeypatch.setattr(module, "_tried", diverges)
    monkeypatch.setattr(module, "MIN_MISTAKES", 0)
    recipe = replace(quick, layers="auto")
    layers = train.fine_tune(learner(shapes, recipe), recipe).chosen["layers"]
    assert layers == {"kept": "head", "because": "with all layers the loss became nan", "trial": None}


def test_with_one_training_image_a_class_it_says_what_could_not_be_cross_validated(shapes, quick, capsys):
    table = data.table(shapes)
    table["split"] = "valid"
    table.loc[table.groupby("label").head(1).index, "split"] = "train"
    recipe = replace(quick, layers="auto", batch=2)
    learn = model.learner(data.blocks(recipe).dataloaders(table), recipe)
    history = train.fine_tune(learn, recipe)
    assert "too few training images to cross-validate it" in capsys.readouterr().err
    assert history.chosen["layers"]["because"] == "too few training images to try whether all layers are better"


def test_a_random_start_trains_all_layers_and_layers_head_refuses_it(shapes, tiny):
    learn = learner(shapes, tiny)
    assert learn.spec.head == "fastai"
    with pytest.raises(RecipeError, match="layers='head', but a random start has learned no features"):
        learner(shapes, replace(tiny, layers="head"))


def test_a_loss_of_ones_own_and_transforms_of_ones_own_train_all_layers(shapes, quick):
    recipe = replace(quick, layers="auto")
    assert learner(shapes, recipe, loss_func=nn.CrossEntropyLoss()).spec.head == "fastai"
    with pytest.raises(RecipeError, match="a head learned from features has a loss of its own, not loss_func"):
        learner(shapes, quick, loss_func=nn.CrossEntropyLoss())
    from fastai.vision.all import Resize

    table = data.table(shapes)
    dls = data.blocks(recipe, item_tfms=[Resize(32)]).dataloaders(table)
    assert model.learner(dls, recipe).spec.head == "fastai"
    with pytest.raises(RecipeError, match="the images are prepared by transforms that kit does not know"):
        model.learner(dls, quick)


def test_a_normalisation_of_ones_own_is_not_replaced_by_that_of_the_weights(shapes, quick):
    from fastai.vision.all import Normalize

    recipe, own = replace(quick, layers="auto"), Normalize.from_stats([0.1] * 3, [0.9] * 3, cuda=False)
    dls = data.blocks(recipe, batch_tfms=[own]).dataloaders(data.table(shapes))
    assert model.learner(dls, recipe).spec.head == "fastai"


def test_an_optimiser_of_its_own_parameters_leaves_the_head_alone(shapes, quick, monkeypatch):
    from fastai.optimizer import OptimWrapper

    monkeypatch.setattr(module, "MIN_MISTAKES", 0)
    recipe = replace(quick, layers="auto")
    learn = learner(shapes, recipe)
    learn.opt_func = OptimWrapper(opt=torch.optim.SGD(learn.model.parameters(), lr=1e-3))
    layers = train.fine_tune(learn, recipe).chosen["layers"]
    assert layers["kept"] == "head"
    assert "no copy can be trained to compare" in layers["because"]


def test_whole_is_fastais_own_schedule_with_fastais_head(shapes, quick):
    recipe = replace(quick, layers="whole", epochs=2)
    learn = learner(shapes, recipe)
    history = train.fine_tune(learn, recipe)
    assert learn.spec.head == "fastai"
    assert [row["phase"] for row in history.rows] == ["frozen", "whole", "whole"]


def test_numbers_are_learned_in_the_units_of_their_range(shapes, quick):
    rows = data.table(shapes).assign(label=[str(10.0 * (number % 5)) for number in range(24)])
    recipe = replace(quick, task="regression")
    learn = model.learner(data.blocks(recipe).dataloaders(rows), recipe)
    targets = targets_of(learn, learn.dls.train_ds.items)
    answered = learn.model[1][-1](torch.from_numpy(targets).float())
    truth = [float(label) for label in learn.dls.train_ds.items["label"]]
    np.testing.assert_allclose(answered[:, 0], truth, atol=1e-3)


def test_a_finished_run_says_what_was_trained_and_its_bundle_predicts_the_same_and_goes_on_as_a_learner(
    shapes, quick, tmp_path
):
    run = kit.fine_tune(shapes, quick, out=tmp_path / "run")
    said = json.loads((run.folder / "result.json").read_text())
    assert said["layers"] == {"kept": "head", "because": "as asked", "trial": None}
    assert "trained: the head (as asked)" in run.lines()
    config = json.loads((run.bundle / "config.json").read_text())
    assert config["architecture"]["head"] == "linear"
    assert config["onnx"]["largest_difference"] < 1e-4
    assert (run.folder / "pictures" / "curves.png").stat().st_size > 5_000
    paths = run.evaluation.predictions["path"].tolist()
    for engine in ("onnx", "torch"):
        table = bundle.load(run.bundle, engine=engine).predict(paths).table()
        assert table["prediction"].tolist() == run.evaluation.predictions["prediction"].tolist()
    again = bundle.learner(run.folder, run.learner.dls)
    assert again.spec.head == "linear"
    assert same(state(run.learner.model), state(again.model))


def test_heat_maps_of_a_linear_head_are_grad_cam(shapes, quick):
    from kit.bundle.inference_model import InferenceModel

    learn = learner(shapes, quick)
    train.fine_tune(learn, quick, history=train.History(quiet=True))
    inference = InferenceModel(learn.model, {"mean": [0.5] * 3, "std": [0.5] * 3})
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    *_, maps = inference(pixels)
    x = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    activations = inference.body(x).detach().requires_grad_()
    logits = inference.head.classifier(inference.head.pool(activations))[0]
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), activations)
    expected = (gradient.mean((2, 3), keepdim=True) * activations).sum(1).relu()
    torch.testing.assert_close(maps[:, 1], expected)


def test_a_second_training_on_the_same_images_computes_no_feature_and_converts_no_network(
    shapes, quick, tmp_path, monkeypatch
):
    from kit.features import compute

    prepared, prepare = [], compute.prepare_image
    monkeypatch.setattr(compute, "prepare_image", lambda path, rules: prepared.append(path) or prepare(path, rules))
    converted, convert = [], torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *given, **more: converted.append(1) or convert(*given, **more))
    images = shutil.copytree(shapes, tmp_path / "images")
    kit.fine_tune(images, quick, out=tmp_path / "first")
    assert (len(prepared), len(converted)) == (24, 1)
    kit.fine_tune(images, quick, out=tmp_path / "second", seed=7)
    assert (len(prepared), len(converted)) == (24, 1)
    (kept,) = (tmp_path / "cache").rglob("body-*.onnx")
    kept.write_bytes(kept.read_bytes()[:-1])
    kit.fine_tune(images, quick, out=tmp_path / "third")
    assert len(converted) == 2, "the file in the cache was damaged"


def test_fewer_images_than_a_batch_are_enough(shapes, quick, tmp_path, capsys):
    run = kit.fine_tune(shapes, quick, batch=64, layers="auto", out=tmp_path / "run", onnx=False)
    assert run.history.chosen["layers"]["kept"] in ("head", "whole")
    assert "do not fill one batch" not in capsys.readouterr().err
