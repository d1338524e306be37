"""Several classes an image, and numbers: the whole line, from a CSV file to a bundle that answers as it learned."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_shapes

import kit
from kit import bundle, cross_validation, data, model, train
from kit.bundle.onnx import TOLERANCE
from kit.cli.evaluate import evaluate
from kit.cli.main import application
from kit.errors import BundleError, DataError, RecipeError
from kit.evaluate.comparison import compare
from kit.manifest import CARD, write_config
from kit.tasks.text import numbers_of
from kit.tasks.training import training_of
from kit.train.callbacks import training_loss


def labels_csv(folder: Path, shapes: Path, head: list[str], cells) -> Path:
    paths = sorted(shapes.rglob("*.png"))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", *head])
        rows.writerows([path.relative_to(shapes).as_posix(), *cells(path)] for path in paths)
    return folder / "labels.csv"


def several(path: Path) -> list[str]:
    """The shape, and whether the image's number is even: two labels, one, or none."""
    names = [path.parent.name] * (path.parent.name != "square") + ["even"] * (int(path.stem) % 2 == 0)
    return [" ".join(names)]


def two_numbers(path: Path) -> list[str]:
    return [str(int(path.stem) * 10), str(len(path.parent.name) / 10)]


@pytest.fixture(scope="module")
def multi(shapes, light, tmp_path_factory):
    """A finished run with several classes an image."""
    folder = tmp_path_factory.mktemp("multi")
    labels = str(labels_csv(folder, shapes, ["label"], several))
    return kit.fine_tune(
        shapes, light, labels=labels, task="multilabel", delimiter=" ", valid=0.4, tta=1, out=folder / "run"
    )


@pytest.fixture(scope="module")
def numbers(shapes, light, tmp_path_factory):
    """A finished run with two numbers an image."""
    folder = tmp_path_factory.mktemp("numbers")
    labels = str(labels_csv(folder, shapes, ["size", "width"], two_numbers))
    options = {"task": "regression", "targets": "size,width", "valid": 0.4, "tta": 1}
    return kit.fine_tune(shapes, light, labels=labels, out=folder / "run", **options)


@pytest.mark.parametrize("kind", ["multi", "numbers"])
def test_the_head_of_either_is_learned_from_features(kind, request, shapes):
    run = request.getfixturevalue(kind)
    learn = model.learner(run.learner.dls, replace(run.recipe, layers="auto"))
    history = train.fine_tune(learn, learn.spec.recipe)
    assert history.rows[0]["phase"] == "head"
    assert history.rows[0]["valid_loss"] > 0
    assert history.chosen["layers"]["trial"] is not None


def test_few_validation_images_are_no_matter_of_error_rates(multi, numbers):
    for run in (multi, numbers):
        texts = [finding.text for finding in data.check(run.table).findings]
        assert any("leave much open: read the interval" in text for text in texts)
        assert not any("error rate" in text for text in texts)


def test_the_dataloaders_are_fastais_with_a_one_and_a_zero_for_each_class(multi):
    dls = multi.learner.dls
    images, targets = dls.one_batch()
    assert list(dls.vocab) == multi.evaluation.vocab == ["circle", "even", "triangle"]
    assert targets.shape == (len(images), 3)
    assert set(targets.flatten().tolist()) <= {0, 1}


def test_the_dataloaders_hold_numbers_in_their_own_unit(numbers):
    dls = numbers.learner.dls
    _, targets = dls.one_batch()
    assert list(dls.vocab) == ["size", "width"]
    assert targets.dtype == torch.float32
    assert set(targets[:, 0].tolist()) <= set(range(0, 80, 10))


def test_a_batch_of_either_is_shown_and_a_sample_travels(multi, numbers, tmp_path):
    for run in (multi, numbers):
        assert "label" in data.trace_sample(run.learner.dls)
        data.show_batch(run.learner.dls, tmp_path / "batch.png")
        assert data.open_image(tmp_path / "batch.png").width > 100


@pytest.fixture(params=["multi", "numbers"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_bundle_answers_as_the_learner_did(either, engine):
    result = either.evaluation
    predictor = bundle.load(either.folder, engine=engine)
    predictions = predictor.predict(result.predictions["path"].tolist())
    answers = np.array([list((one.numbers or one.probabilities).values()) for one in predictions])
    width = (
        np.subtract(predictor.config["range"]["high"], predictor.config["range"]["low"]) if either.recipe.targets else 1
    )
    assert (np.abs(answers - result.outputs) / width).max() < 1e-5
    assert predictor.task == result.task
    for name in ("proof", "onnx"):
        assert predictor.config[name]["largest_difference"] < TOLERANCE
        assert predictor.config[name]["images"] == result.n


def test_a_prediction_of_several_classes_names_those_over_their_threshold(multi, tmp_path):
    predictor = bundle.load(multi.folder)
    predictor.config["thresholds"] = [0.0, 1.1, 0.0]
    path = multi.evaluation.predictions["path"].iloc[0]
    (one,) = predictor.predict(path)
    assert set(one.labels) == {"circle", "triangle"}
    assert one.label == "circle;triangle"
    assert one.text == ", ".join(one.labels)
    assert one.probabilities[one.labels[0]] >= one.probabilities[one.labels[1]]
    assert one.probability is None
    predictor.config["thresholds"] = [1.1] * 3
    (none,) = predictor.predict(path)
    assert (none.label, none.labels, none.text) == ("", (), "none of the classes")
    table = predictor.predict([path, tmp_path / "nowhere.png"]).table()
    assert list(table) == ["path", "prediction", "p_circle", "p_even", "p_triangle", "unlike", "error"]


def test_a_prediction_of_numbers_holds_them_by_name(numbers):
    predictor = bundle.load(numbers.folder)
    (one,) = predictor.predict(numbers.evaluation.predictions["path"].iloc[0])
    assert list(one.numbers) == ["size", "width"]
    assert one.text.startswith("size ")
    assert list(predictor.predict([]).table()) == ["path", "predicted_size", "predicted_width", "unlike", "error"]
    prediction, maps = predictor.explain(numbers.evaluation.predictions["path"].iloc[0])
    assert maps.shape[0] == 2
    assert prediction.numbers == pytest.approx(one.numbers)


def test_a_map_of_a_number_is_grad_cam_of_the_logit_below_its_range(numbers):
    from kit.bundle.inference_model import InferenceModel

    config = bundle.load(numbers.folder).config
    inference = InferenceModel(numbers.learner.model.cpu(), config["image"], "regression")
    pixels = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    x = inference.preprocess(pixels)
    activations = inference.body(x).detach().requires_grad_()
    logit = inference.head.classifier(inference.head.pool(activations))[0][:, 1].sum()
    (gradient,) = torch.autograd.grad(logit, activations)
    expected = (gradient.mean((2, 3), keepdim=True) * activations).sum(1).relu()
    assert torch.allclose(inference(pixels)[2][:, 1], expected, atol=1e-6)


def test_a_run_folder_tells_all_of_it(either):
    result = json.loads((either.folder / "result.json").read_text())
    assert result[either.evaluation.name] == either.headline.value
    assert result["tta"]["views"] == 1
    names = {path.name for path in (either.folder / "pictures").iterdir()}
    assert names == {
        "curves.png",
        "predictions.png",
        "top_losses.png",
        {"f1": "classes.png", "r2": "scatter.png"}[either.evaluation.name],
    }
    assert either.evaluation.name in repr(either)
    history = pd.read_csv(either.folder / "history.csv")
    assert {"f1_at_half", "mean_average_precision"} <= set(history) or "mean_r2" in set(history)


def test_the_report_and_the_card_speak_of_the_task(multi, numbers):
    report, card = (multi.folder / "report.html").read_text(), (multi.bundle / CARD).read_text()
    assert "Mean F1" in report
    assert "average precision: the mean precision over all thresholds" in report
    assert "Confusion matrix" not in report
    assert "Finds which of these classes are in an image, any number of them: circle, even, triangle." in card
    assert "| class | images | threshold | precision | recall | F1 | average precision |" in card
    report, card = (numbers.folder / "report.html").read_text(), (numbers.bundle / CARD).read_text()
    assert "Predicted over true numbers, a dot for each image" in report
    assert "Predicts these numbers from an image: size, width." in card
    assert "Its answers never lie outside these ranges: size -7 to 77, width 0.58 to 0.82." in card


def said(*arguments, expect: int = 0) -> str:
    from typer.testing import CliRunner

    done = CliRunner().invoke(application(), [str(argument) for argument in arguments])
    assert done.exit_code == expect, done.output
    return done.stdout


def test_kit_evaluate_measures_either_anew(multi, numbers, shapes):
    multi_csv, numbers_csv = multi.folder.parent / "labels.csv", numbers.folder.parent / "labels.csv"
    figures = json.loads(said("evaluate", multi.folder, shapes, "--labels", multi_csv, "--json"))
    assert figures["n"] == multi.evaluation.n
    figures = json.loads(said("evaluate", numbers.folder, shapes, "--labels", numbers_csv, "--json"))
    assert figures["r2"] == pytest.approx(numbers.headline.value, abs=1e-5)


def test_kit_evaluate_refuses_classes_and_numbers_that_the_bundle_does_not_tell(multi, numbers, shapes, tmp_path):
    other = labels_csv(tmp_path, shapes, ["label", "size"], lambda path: ["seven", "7"])
    with pytest.raises(DataError, match="labels that the model never saw: seven"):
        evaluate(multi.folder, str(shapes), labels=str(other))
    with pytest.raises(DataError, match="the images have 1 numbers each, and the bundle predicts size, width"):
        evaluate(numbers.folder, str(new_shapes(tmp_path)), labels=str(tmp_path / "new" / "new.csv"), targets="size")


def new_shapes(tmp_path: Path) -> Path:
    """Images that no bundle was trained on, and their sizes."""
    write_shapes(tmp_path / "new", count=2, first=50)
    rows = [f"{path.relative_to(tmp_path / 'new')},5" for path in sorted((tmp_path / "new").rglob("*.png"))]
    (tmp_path / "new" / "new.csv").write_text("\n".join(["path,size", *rows]))
    return tmp_path / "new"


def test_kit_predict_prints_a_line_an_image(multi, numbers):
    path = numbers.evaluation.predictions["path"].iloc[0]
    assert said("predict", numbers.folder, path).startswith(f"{path}: size ")
    line = said("predict", multi.folder, path)
    assert "%" in line


def test_folds_spread_classes_and_numbers(shapes, light, tmp_path):
    labels = str(labels_csv(tmp_path, shapes, ["label"], several))
    recipe = replace(light, labels=labels, task="multilabel", delimiter=" ", freeze_epochs=0)
    found = cross_validation.cross_validate(shapes, recipe, folds=2, out=tmp_path / "folds")
    assert found.headline.n == 24
    assert "F1 of each of 2 folds: from" in "\n".join(found.lines())
    assert (tmp_path / "folds" / "pictures" / "classes.png").is_file()


def test_two_runs_of_numbers_are_not_compared_by_right_and_wrong(numbers):
    with pytest.raises(DataError, match="right and wrong are what is compared") as error:
        compare(numbers.folder, numbers.folder)
    assert "R2" in error.value.fix


def test_balanced_class_weights_make_presence_weigh_as_absence(shapes, light, tmp_path):
    weights = training_of("multilabel").class_weights
    assert weights(["a;b", "a", "a", ""], ["a", "b"]) == [1 / 3, 3]
    labels = str(labels_csv(tmp_path, shapes, ["label"], several))
    recipe = replace(light, labels=labels, task="multilabel", delimiter=" ", class_weights="balanced")
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes, **data.table_args(recipe))), recipe)
    loss = training_loss(learn, recipe)
    assert loss.func.pos_weight.tolist() == pytest.approx(
        weights(learn.dls.train_ds.items["label"].tolist(), learn.dls.vocab)
    )
    assert np.isfinite(train.fine_tune(learn, recipe).rows[-1]["train_loss"])


@pytest.mark.parametrize("blend", [{"mixup": 0.4}, {"cutmix": 1.0}])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_blended_images_train_with_blended_labels(shapes, light, tmp_path, task, blend):
    cells = several if task == "multilabel" else lambda path: [path.stem]
    labels = str(labels_csv(tmp_path, shapes, ["label"], cells))
    delimiter = {"delimiter": " "} if task == "multilabel" else {}
    recipe = replace(light, labels=labels, task=task, freeze_epochs=0, **delimiter, **blend)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes, **data.table_args(recipe))), recipe)
    assert np.isfinite(train.fine_tune(learn, recipe).rows[-1]["train_loss"])


MEANS_NOTHING = [
    ({"task": "regression", "label_smoothing": 0.1}, "task=classification"),
    ({"task": "regression", "class_weights": "balanced"}, "task=classification or multilabel"),
    ({"task": "multilabel", "sampler": "balanced"}, "task=classification"),
    ({"targets": "a,b"}, "task=multilabel or regression"),
    ({"y_range": "0,1"}, "task=regression"),
    ({"delimiter": " "}, "task=multilabel"),
]


@pytest.mark.parametrize(("options", "fix"), MEANS_NOTHING, ids=str)
def test_what_means_nothing_for_a_task_is_refused(options, fix):
    name, value = list(options.items())[-1]
    with pytest.raises(RecipeError, match=f"{name}={value!r} has no effect for the task ") as error:
        kit.Recipe(**options)
    assert error.value.fix == f"leave it out, or say {fix}"


@pytest.mark.parametrize(
    ("options", "problem", "fix"),
    [
        ({"task": "detection"}, "task='detection' is not known", "one of: classification, multilabel, regression"),
        ({"task": "regression", "targets": "a,,b"}, "names a column twice, or none", "targets='width,height'"),
        ({"task": "multilabel", "targets": "a,a"}, "names a column twice", "targets='width,height'"),
        ({"task": "multilabel", "delimiter": ""}, "delimiter='' separates nothing", "delimiter=';'"),
    ],
    ids=str,
)
def test_what_a_task_cannot_follow_is_refused(options, problem, fix):
    with pytest.raises(RecipeError) as error:
        kit.Recipe(**options)
    assert problem in error.value.problem
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ("which", "fields", "message"),
    [
        ("multi", {"task": "detection"}, "field task is 'detection', none of classification, multilabel, regression"),
        ("multi", {"thresholds": [0.5]}, "field thresholds is not a list of 3 numbers"),
        ("multi", {"thresholds": [0.5, "x", 0.5]}, "field thresholds is not a list of 3 numbers"),
        ("numbers", {"range": {"low": [0], "high": [1], "bounded": True}}, "has no low and high for 2 numbers"),
        ("numbers", {"range": {"low": [0, 5], "high": [1, 5], "bounded": True}}, "field range has no low and high"),
        ("numbers", {"range": None}, "field range has no low and high"),
        ("multi", {"metrics": {"n": 3, "low": 0.1, "high": 0.2}}, "field metrics.f1 is not a number"),
    ],
    ids=str,
)
def test_a_bundle_whose_task_is_not_as_it_should_be_is_refused(request, which, fields, message, tmp_path):
    import shutil

    run = request.getfixturevalue(which)
    folder = tmp_path / "bundle"
    shutil.copytree(run.bundle, folder)
    config = json.loads((folder / "config.json").read_text())
    write_config(folder, config | fields)
    with pytest.raises(BundleError) as error:
        bundle.load(folder)
    assert message in error.value.problem


def test_a_learner_goes_on_from_a_bundle_of_numbers(numbers):
    learn = bundle.learner(numbers.folder, numbers.learner.dls)
    ours, theirs = learn.model.state_dict(), numbers.learner.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name].cpu()) for name in ours)
    assert learn.spec.output_range.to_json() == numbers.learner.spec.output_range.to_json()


def test_table_csv_keeps_the_label_texts(multi, numbers):
    table = pd.read_csv(multi.folder / "table.csv", keep_default_na=False)
    assert set(table["label"]) == {"circle;even", "even;triangle", "circle", "even", "triangle", ""}
    table = pd.read_csv(numbers.folder / "table.csv")
    assert {numbers_of(label)[0] for label in table["label"]} == set(range(0, 80, 10))
