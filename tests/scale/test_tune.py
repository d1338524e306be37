"""kit tune: what is searched, on which images, how a search goes on, ends and is joined, and what it refuses."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from conftest import draw_shape, write_shapes
from fastai.vision.all import Callback
from typer.testing import CliRunner

import kit
from kit import data
from kit.cli.main import application
from kit.errors import DataError, OutputError, RecipeError, Terminated, TrainingError, WeightsError
from kit.scale import search as searching
from kit.scale.search import best_trial, inner_split, measure, tune
from kit.scale.space import NETWORK, recipe_of, search_space, starting_points
from kit.scale.study import database_url, finished, running_elsewhere, this_process
from kit.unfinished import read_job


@pytest.fixture(scope="module")
def searched(light):
    """A recipe with a tiny network, of which layers, rate and augmentation are to be searched."""
    return replace(light, layers="auto", freeze_epochs=1)


LITTLE = ("layers", "rate", "augment")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("images") / "shapes", 10)


@pytest.fixture(scope="module")
def found(images, searched, tmp_path_factory):
    """A search that was interrupted in its second trial, and went on with the same call."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_CACHE", str(folder / "cache"))
        interrupted(images, searched, folder / "tune", KeyboardInterrupt)
        return tune(images, searched, trials=3, search=LITTLE, out=folder / "tune", onnx=False)


def interrupted(images, recipe, out, stop):
    """Start a search, and raise `stop` in its second trial."""

    def stopping(trial, recipe, rows):
        if trial.number == 1:
            raise stop
        return measure(trial, recipe, rows)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(stop):
        patch.setattr(searching, "measure", stopping)
        tune(images, recipe, trials=3, search=LITTLE, out=out)


class Stop(Callback):
    """Ctrl-C after the first epoch."""

    order = 2000

    def after_epoch(self):
        raise KeyboardInterrupt


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}")


def test_the_winner_is_a_run_that_predicts_and_is_measured_on_images_that_no_trial_saw(found, images, searched):
    assert (found.run.folder / "report.html").is_file()
    assert kit.bundle.load(found.folder / "best").predict([next(images.rglob("*.png"))]).table().shape[0] == 1
    table = pd.read_csv(found.run.folder / "table.csv")
    held_out = set(table.loc[table["split"] == "valid", "path"])
    seen = set(inner_split(data.table(images, **data.table_args(searched)), searched)["path"])
    assert len(held_out) == found.run.headline.n == 6
    assert seen == set(table.loc[table["split"] == "train", "path"])
    assert seen.isdisjoint(held_out)


def test_what_was_found_is_in_words_in_json_and_on_a_page(found):
    told = json.loads((found.folder / "tune.json").read_text())
    assert told["trials"]["complete"] + told["trials"]["pruned"] == 3
    assert told["winner"]["recipe"]["layers"] == found.run.recipe.layers in ("head", "all")
    gap = told["held_out"]["value"] - told["inner"]["value"]
    assert told["optimism"]["value"] == pytest.approx(gap)
    assert told["optimism"]["low"] < gap < told["optimism"]["high"]
    assert told["inner"]["value"] == min(trial.value for trial in finished(found.study) if trial.value is not None)
    words = "\n".join(found.lines())
    assert f"optimism of the search (by how much the inner figure is better): {gap:.4f} (95 %" in words
    page = (found.folder / "trials.html").read_text()
    assert all(f'<th scope="row">{number}</th>' in page for number in range(3))
    assert page.count("data:image/png") == len(list((found.folder / "pictures").iterdir())) >= 3
    assert len((found.folder / "trials.csv").read_text().splitlines()) >= 4


def test_the_first_trials_are_the_defaults(found):
    first, second = study_of(found.folder).trials[:2]
    assert first.params == {"layers": "head"}
    assert second.system_attrs["fixed_params"] == {"layers": "all", "rate": 1e-4, "augment": True}


def test_a_finished_search_is_not_continued_because_that_would_use_the_held_out_images_again(found, images, searched):
    with pytest.raises(OutputError, match="is finished: its winner was measured on the held-out images"):
        tune(images, searched, trials=9, search=LITTLE, out=found.folder)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_a_search_that_is_stopped_says_what_it_has_and_how_to_go_on(images, searched, tmp_path, capsys, stop):
    interrupted(images, searched, tmp_path / "tune", stop)
    said = capsys.readouterr().err
    assert "stopped after 1 trials; the best is trial 0, error rate" in said
    assert said.endswith("to go on: the same command again\n")
    assert [trial.state.name for trial in study_of(tmp_path / "tune").trials] == ["COMPLETE", "FAIL"]


def test_a_search_that_was_stopped_goes_on_with_the_trials_it_has(found):
    assert [trial.state.name for trial in found.study.trials][:2] == ["COMPLETE", "FAIL"]
    assert found.counts()["failed"] == 1
    assert len(finished(found.study)) == 3


@pytest.mark.slow
def test_a_winner_whose_training_was_stopped_is_trained_further_by_the_same_command(
    images, searched, tmp_path, monkeypatch, capsys
):
    def stopping(source, recipe, **options):
        return kit.fine_tune(source, recipe, cbs=[Stop()], **options)

    recipe, out = replace(searched, layers="all", epochs=2), tmp_path / "tune"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(searching, "fine_tune", stopping)
        tune(images, recipe, trials=1, search=("rate", "augment"), out=out, onnx=False)
    assert capsys.readouterr().err.endswith("to go on: the same command again\n")
    assert list((out / "best" / "checkpoint").glob("*.safetensors"))
    monkeypatch.setattr("kit.pipeline.read_job", lambda folder, read=read_job: replace(read(folder), given=[]))
    found = tune(images, recipe, trials=1, search=("rate", "augment"), out=out, onnx=False)
    assert [row["phase"] for row in found.run.history.rows] == ["head", "whole", "whole"]
    assert not (out / "best" / "checkpoint").exists()


def test_features_are_computed_once_for_all_trials_and_the_winner(found, images):
    from safetensors.numpy import load_file

    files = (found.folder.parent / "cache" / "features").rglob("*.safetensors")
    assert sum(len(load_file(path)["hashes"]) for path in files) == len(list(images.rglob("*.png")))


def test_a_trial_that_is_worse_than_the_median_after_an_epoch_is_pruned(images, searched):
    recipe = replace(searched, layers="all", epochs=3)
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1))
    study.add_trials(optuna.create_trial(value=0.0, intermediate_values={1: 0.0}) for _ in range(5))
    trial, rows = study.ask(), inner_split(data.table(images), recipe)
    with pytest.raises(optuna.TrialPruned):
        measure(trial, recipe, rows)
    assert trial.user_attrs["because"] == "pruned after epoch 1"
    assert sorted(study.trials[-1].intermediate_values) == [0, 1]


def test_a_trial_is_given_up_where_its_process_on_this_host_is_gone_and_not_where_another_runs():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host, number, since = this_process()
    study = optuna.create_study()
    processes = ([host, gone.pid, since], [host, number, since], [host, number, since - 100], ["other", number, since])
    for process in processes:
        study.ask().set_user_attr("process", process)
    study.ask()  # not begun yet
    assert running_elsewhere(study) == f"trial 1, 3, 4 on ?, {', '.join(sorted([host, 'other']))}"
    assert running_elsewhere(study, before=3) == f"trial 1 on {host}"
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "FAIL", "RUNNING", "RUNNING"]


def test_of_trials_with_the_same_figure_the_one_with_the_lowest_loss_wins():
    study = optuna.create_study()
    for value, loss in ((0.2, 0.1), (0.1, 0.9), (0.1, 0.4)):
        study.add_trial(optuna.create_trial(value=value, user_attrs={"loss": loss}))
    assert best_trial(study).number == 2
    study = optuna.create_study(direction="maximize")
    for value in (0.2, 0.7):
        study.add_trial(optuna.create_trial(value=value, user_attrs={"loss": 1.0}))
    assert best_trial(study).number == 1


def test_the_winner_is_not_trained_where_images_were_changed_during_the_search(images, searched, tmp_path, monkeypatch):
    copy = shutil.copytree(images, tmp_path / "images")

    def changing(trial, recipe, rows):
        draw_shape("circle", 100).save(copy / "circle" / "new.png")
        return measure(trial, recipe, rows)

    monkeypatch.setattr(searching, "measure", changing)
    with pytest.raises(DataError, match="images or labels were changed while the search ran"):
        tune(copy, searched, trials=1, search=("layers",), out=tmp_path / "tune")
    assert not (tmp_path / "tune" / "best").exists()


def test_trials_whose_settings_cannot_be_trained_are_left_out_and_without_any_other_that_is_said(
    images, searched, tmp_path, monkeypatch
):
    def failing(trial, recipe, rows):
        raise TrainingError("the loss became nan", fix="a lower rate")

    monkeypatch.setattr(searching, "measure", failing)
    with pytest.raises(TrainingError, match="none of 2 trials gave a result: the loss became nan"):
        tune(images, searched, trials=2, search=LITTLE, out=tmp_path / "tune")


@pytest.mark.slow
def test_numbers_are_searched_by_r2(images, searched, tmp_path):
    rows = [
        {"path": str(path), "label": str(int(path.stem) % 5 + len(path.parent.name))} for path in images.rglob("*.png")
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "sizes.csv", index=False)
    recipe = replace(searched, task="regression", labels=str(tmp_path / "sizes.csv"), epochs=1)
    found = tune(images, recipe, trials=2, search=("layers", "rate"), out=tmp_path / "tune", onnx=False)
    complete = [trial for trial in finished(found.study) if trial.value is not None]
    assert found.inner.value == max(trial.value for trial in complete)
    assert found.run.evaluation.name == "r2"


def test_only_networks_with_weights_on_this_machine_are_searched(tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    for name in ("test_resnet.r160_in1k", "test_efficientnet.r160_in1k"):
        save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    _, space = search_space(kit.Recipe())
    assert {"test_resnet.r160_in1k imagenet", "test_efficientnet.r160_in1k imagenet"} < set(space[NETWORK])
    assert "resnet18 bundled" in space[NETWORK]
    assert all(name.partition(" ")[0] != "resnet50" for name in space[NETWORK])
    base, space = search_space(kit.Recipe(arch="test_resnet"))
    assert base.arch == "test_resnet.r160_in1k"
    assert NETWORK not in space
    with pytest.raises(WeightsError, match="no weights of resnet50 are on this machine; there are: "):
        search_space(kit.Recipe(arch="resnet50"))


def test_given_settings_are_not_searched_and_a_head_has_no_settings_of_all_layers(searched):
    base, space = search_space(searched)
    assert list(space) == ["layers", "epochs", "rate", "augment", "mixup", "label_smoothing"]
    assert [list(point) for point in starting_points(base, space)] == [["layers"], list(space)]
    assert "epochs" not in search_space(replace(searched, epochs=4))[1]
    base, space = search_space(kit.Recipe(layers="head", arch="resnet18", weights="bundled"))
    assert list(space) == ["size"]
    assert starting_points(base, space) == [{"size": 128}]  # the default for these weights
    base, space = search_space(kit.Recipe(layers="head"), ["size"])
    assert starting_points(base, space) == [{"size": 224}]
    assert "mixup" not in search_space(replace(searched, cutmix=1.0))[1]
    assert "augment" not in search_space(replace(searched, tta=2))[1]
    assert "label_smoothing" not in search_space(replace(searched, task="multilabel"))[1]
    given = replace(searched, mixup=0.2)
    assert recipe_of(given, {"layers": "head"}).mixup == 0
    assert recipe_of(given, {"layers": "all", "rate": 1e-3}).mixup == 0.2


@pytest.mark.parametrize(
    ("changes", "names", "problem"),
    [
        ({}, ["rates"], "'rates' cannot be searched. Did you mean \"rate\"?"),
        ({"epochs": 3}, ["epochs"], "epochs is to be searched, but epochs=3 is given"),
        ({"layers": "head"}, ["rate"], "rate is to be searched, but it has no effect with layers='head'"),
        ({"layers": "head"}, None, "there is nothing to search: all settings are fixed"),
        ({"patience": 2}, None, "patience=2 would choose the winner's weights by the held-out images"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(searched, changes, names, problem):
    with pytest.raises(RecipeError) as caught:
        search_space(replace(searched, **changes), names)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"trials": 0}, "trials=0 is not a whole number from 1"),
        ({"minutes": 0}, "minutes=0 is not a number above 0"),
        ({"minutes": float("nan")}, "minutes=nan is not a number above 0"),
        ({"metrics": []}, "metrics cannot be given to a search"),
        ({"study": "redis://host/0"}, "--study: a database 'redis' is not known"),
        ({"study": "photos"}, "--study 'photos' is not the URL of a database"),
        ({"study": "sqlite://"}, "--study 'sqlite://' names no file"),
    ],
)
def test_arguments_that_no_search_can_have_are_refused(images, searched, tmp_path, arguments, problem):
    with pytest.raises(RecipeError) as caught:
        tune(images, searched, out=tmp_path / "tune", **arguments)
    assert problem in str(caught.value)
    assert not (tmp_path / "tune").exists()


def test_a_study_of_other_images_or_settings_is_not_joined(images, searched, tmp_path, monkeypatch):
    out = tmp_path / "tune"
    monkeypatch.setattr(searching, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tune(images, searched, search=LITTLE, out=out)
    study = study_of(out)
    facts = study.user_attrs["kit"]
    del facts["recipe"]["tta"]  # as a version of kit that does not know the field
    study.set_user_attr("kit", facts)
    with pytest.raises(KeyboardInterrupt):
        tune(images, searched, search=LITTLE, out=out)
    with pytest.raises(RecipeError, match="was started with other settings: epochs, rate"):
        tune(images, replace(searched, epochs=2), search=("layers", "augment"), out=out)
    with pytest.raises(DataError, match="was started with other images, labels or another split than these"):
        tune(images, replace(searched, seed=1), search=LITTLE, out=out)
    optuna.create_study(study_name="other", storage=f"sqlite:///{tmp_path / 'other.db'}")
    monkeypatch.setattr("kit.scale.study.SECONDS_TO_CREATE", 0)
    with pytest.raises(OutputError, match="the study other in .* was not started by kit tune"):
        tune(images, searched, search=LITTLE, out=tmp_path / "other", study=f"sqlite:///{tmp_path / 'other.db'}")


def test_a_folder_with_other_files_and_a_database_that_cannot_be_used_are_refused(images, searched, tmp_path, run):
    with pytest.raises(OutputError, match=r"holds other files than those of a search: bundle, "):
        tune(images, searched, out=run.folder)
    with pytest.raises(OutputError, match="the database .* cannot be used: unable to open database file"):
        tune(images, searched, out=tmp_path / "a", study=f"sqlite:///{tmp_path / 'nowhere' / 'study.db'}")
    (tmp_path / "no.db").write_bytes(b"no database" * 200)
    with pytest.raises(OutputError, match="cannot be used: file is not a database"):
        tune(images, searched, out=tmp_path / "a", study=f"sqlite:///{tmp_path / 'no.db'}")


def test_a_missing_driver_is_named_with_the_command_that_installs_it(images, searched, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(OutputError) as caught:
        tune(images, searched, out=tmp_path / "a", study="mysql://kit:secret@127.0.0.1:9/kit")
    assert "pip install 'pymysql'" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgres://a:b@c/d", "postgresql+psycopg://a:b@c/d"),
        ("postgresql+psycopg2://a@c/d", "postgresql+psycopg2://a@c/d"),
        ("mysql://a@c/d", "mysql+pymysql://a@c/d"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
    ],
)
def test_a_url_gets_the_driver_whose_package_is_named(given, url):
    assert database_url(given) == url


def test_the_command_line_has_the_same_arguments(images, searched, tmp_path):
    options = [
        "--arch",
        searched.arch,
        "--weights",
        searched.weights,
        "--size",
        "32",
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    words = [str(images), *options, "--layers", "head", "--out", str(tmp_path / "tune")]
    done = CliRunner().invoke(application(["tune"]), ["--help"])
    assert done.exit_code == 0
    result = CliRunner().invoke(application(["tune", "runs"]), ["tune", *words, "--trials", "0"])
    assert "trials=0 is not a whole number" in str(result.exception)
    result = CliRunner().invoke(application(["tune", "runs"]), ["tune", *words, "--search", "size, epochs"])
    assert "size is to be searched, but size=32 is given" in str(result.exception)
