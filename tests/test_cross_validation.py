"""Cross-validation: each image predicted once by a network that never saw it, pooled with one interval."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from conftest import draw_shape, write_shapes
from typer.testing import CliRunner

import kit
from kit import evaluate
from kit.cli.main import application
from kit.errors import DataError, OutputError, RecipeError
from kit.intervals import wilson


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 drawings, one of them twice."""
    folder = write_shapes(tmp_path_factory.mktemp("photos"))
    draw_shape("circle", 0).save(folder / "circle" / "copy.png")
    return folder


@pytest.fixture(scope="module")
def found(photos, tiny, tmp_path_factory):
    return kit.cross_validate(photos, tiny, folds=3, out=tmp_path_factory.mktemp("runs") / "folds")


def test_every_image_is_predicted_once_by_the_fold_that_did_not_train_on_it(found):
    assert found.evaluation.n == len(found.table) == 25
    assert found.evaluation.predictions["path"].tolist() == found.table["path"].tolist()
    assert sorted(found.table["fold"].unique()) == [1, 2, 3]
    copies = found.table[found.table["group"] != ""]
    assert len(copies) == 2
    assert copies["fold"].nunique() == 1


def test_the_pooled_error_has_wilsons_interval_over_all_images_and_the_folds_their_own(found):
    wrong = (~found.evaluation.predictions["correct"]).sum()
    assert found.error_rate == wilson(int(wrong), 25)
    assert sum(round(fold.value * fold.n) for fold in found.folds) == wrong
    assert sum(fold.n for fold in found.folds) == 25


def test_the_folder_holds_all_but_a_bundle_and_says_so(found):
    names = {path.name for path in found.folder.iterdir()}
    files = {"recipe.json", "table.csv", "result.json", "history.csv", "predictions.csv", "report.html"}
    assert names == files | {"pictures"}
    assert any("no network is kept" in line for line in found.lines())
    result = json.loads((found.folder / "result.json").read_text())
    assert result["n"] == 25
    assert len(result["folds"]) == 3
    assert json.loads((found.folder / "recipe.json").read_text())["chosen"]["folds"] == 3
    assert set(pd.read_csv(found.folder / "history.csv")["fold"]) == {1, 2, 3}


def test_two_cross_validations_are_compared_on_all_images(found, photos, tiny, tmp_path):
    other = kit.cross_validate(photos, tiny, folds=2, out=tmp_path / "other", seed=7)
    compared = evaluate.compare(found.folder, other.folder)
    assert compared.n == 24, "of two copies one is enough"
    assert compared.left_out == (0, 0)


def test_its_report_tells_of_all_folds_and_how_to_make_it_again(found, photos):
    text = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "Measured on 25 images that it was not trained on" in text
    assert found.spread in text
    assert "from a random start, 1 epoch, 3 folds" in text
    arch = json.loads((found.folder / "recipe.json").read_text())["chosen"]["arch"]
    assert f"kit fine-tune {photos} --folds 3 --arch {arch} --weights none" in text
    assert ": 5 validation images are too few" not in text, "all images validate in turn"
    assert "Training losses" not in text, "three trainings have no one curve"


def test_what_flatters_a_figure_is_said_of_folds_too(photos, tiny, tmp_path):
    found = kit.cross_validate(photos, replace(tiny, patience=1), folds=2, out=tmp_path / "run")
    caveat = "note: early stopping chose the weights by these images, which flatters them a little"
    assert caveat in found.lines()
    assert caveat in (found.folder / "report.html").read_text(encoding="utf-8")


def test_a_seed_repeats_it(found, photos, tiny, tmp_path):
    again = kit.cross_validate(photos, tiny, folds=3, out=tmp_path / "again")
    pd.testing.assert_frame_equal(again.evaluation.predictions, found.evaluation.predictions)


def test_images_kept_for_testing_stay_out(tiny, tmp_path):
    write_shapes(tmp_path / "photos" / "train", count=4)
    write_shapes(tmp_path / "photos" / "test", count=2, first=40)
    found = kit.cross_validate(tmp_path / "photos", tiny, folds=2, out=tmp_path / "run")
    assert found.evaluation.n == 12
    assert (found.table.loc[found.table["split"] == "test", "fold"] == 0).all()


def test_given_validation_images_and_folds_contradict_each_other(tiny, tmp_path):
    write_shapes(tmp_path / "photos" / "train", count=4)
    write_shapes(tmp_path / "photos" / "valid", count=2, first=40)
    with pytest.raises(DataError, match="the validation images are given, and folds choose their own"):
        kit.cross_validate(tmp_path / "photos", tiny, folds=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_that_lies_in_one_fold_alone_is_refused_before_training(tiny, photos, tmp_path):
    paths = sorted(map(str, photos.rglob("0*.png")))
    table = pd.DataFrame({"path": paths, "label": [path.split("/")[-2] for path in paths]})
    table["group"] = table["label"].where(table["label"] == "circle", "")
    with pytest.raises(DataError, match=r"fold \d of 3 has no training image of circle"):
        kit.cross_validate(table, tiny, folds=3, split="grouped", out=tmp_path / "run")


@pytest.mark.parametrize("folds", [1, 0, 101, 2.5, "5"])
def test_a_number_of_folds_that_makes_no_sense_is_refused(photos, tiny, folds, tmp_path):
    with pytest.raises(RecipeError, match="is not a whole number from 2 to 100"):
        kit.cross_validate(photos, tiny, folds=folds, out=tmp_path / "run")


def test_the_command_prints_the_pooled_error_rate(photos, tmp_path):
    command = ["fine-tune", str(photos), "--folds", "2", "--weights", "none", "--size", "32", "--batch", "4"]
    command += ["--arch", "test_resnet", "--workers", "0", "--device", "cpu", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(application(), command)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("error_rate ")
    assert "(n=25, 95 %" in done.stdout


def test_an_output_folder_that_is_taken_is_refused_first(found, photos, tiny):
    with pytest.raises(OutputError, match="exists and is not empty"):
        kit.cross_validate(photos, tiny, folds=2, out=found.folder)
