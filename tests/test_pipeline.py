"""The whole line: a run folder is complete, says what was chosen, and is refused before training if it would fail."""

import json

import pandas as pd
import pytest
from conftest import write_shapes

import kit
from kit import bundle
from kit.errors import DataError, OutputError, RecipeError
from kit.evaluate.calibration import Calibration
from kit.runs import free_names
from kit.tasks import of


def test_a_run_folder_is_complete(run):
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "report.html", "recipe.json", "table.csv", "result.json", "history.csv", "predictions.csv", "pictures",
        "bundle",
    }  # fmt: skip
    assert {path.name for path in run.pictures} == {
        "confusion.png", "curves.png", "predictions.png", "top_losses.png",
    }  # fmt: skip


def test_result_json_is_for_programs(run):
    result = json.loads((run.folder / "result.json").read_text())
    assert (result["error_rate"], result["n"]) == (run.error_rate.value, 6)
    assert result["low"] < result["high"]
    assert result["seconds"] > 0
    assert result["weights"] == {"asked": "none", "kind": "none", "origin": "random numbers", "note": None}
    assert set(result["metrics"]["per_class"]) == {"circle", "square", "triangle"}


def test_every_choice_made_for_the_user_is_written_down(run):
    written = json.loads((run.folder / "recipe.json").read_text())
    assert kit.Recipe.from_json(written["recipe"]) == run.recipe
    assert "test_resnet, from a random start, 1 epoch" in (run.folder / "report.html").read_text()
    chosen = written["chosen"]
    assert chosen["precision"] in ("fp32", "bf16")
    assert chosen["precision_because"]
    assert chosen["threads"] >= 1
    assert len(chosen["mean"]) == 3
    expected = {"arch": "timm/test_resnet", "weights": "random numbers", "device": "cpu", "workers": 0, "rate": 2e-3}
    expected |= {"lr_mult": 100, "batch": 4, "accumulate": 1, "halvings": 0}
    expected |= {"steps": 4, "stopped": None, "kept_epoch": None}
    assert {name: chosen[name] for name in expected} == expected


def test_a_runs_name_tells_the_network_where_one_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kit.runs.time.strftime", lambda form: "20261121-153000")
    assert str(next(free_names("pets", kit.Recipe()))) == "runs/pets-20261121-153000"
    assert str(next(free_names("pets", kit.Recipe(arch="timm/resnet18")))) == "runs/pets-timm-resnet18-20261121-153000"


def test_the_tables_tell_what_was_trained_on_what_and_how_it_went(run):
    assert list(pd.read_csv(run.folder / "table.csv")) == ["path", "label", "split", "group", "sha256"]
    assert len(pd.read_csv(run.folder / "history.csv")) == 1
    assert len(pd.read_csv(run.folder / "predictions.csv")) == 6


def test_the_table_of_predictions_has_the_answers_of_the_bundle_and_its_doubts_are_told(
    shapes, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr("kit.evaluate.classification.calibrate", lambda *_: Calibration(3.0, 0.2, 0.1, 24))
    run = kit.fine_tune(shapes, tiny, out=tmp_path / "run", onnx=False)
    rows = pd.read_csv(run.folder / "predictions.csv")
    answers = bundle.load(run.folder).predict(rows["path"])
    columns = of("classification").columns(run.evaluation.vocab)
    assert set(columns) - {"unlike", "error"} <= set(rows)
    for row, answer in zip(rows.itertuples(), answers, strict=True):
        assert row.prediction == answer.label
        assert row.probability == pytest.approx(answer.probability, abs=1e-5)
        assert row.p_circle == pytest.approx(answer.probabilities["circle"], abs=1e-5)
        assert row.probability < answer.plain[answer.label]
    told = "Probabilities are not reliable: there were only 24 images to calibrate them on."
    assert f"note: {told}" in run.lines()
    for file in ("report.html", "bundle/README.md"):
        assert told in (run.folder / file).read_text()


def test_a_test_folder_is_reported_once_at_the_end(tiny, tmp_path):
    for number, side in enumerate(("train", "valid", "test")):
        write_shapes(tmp_path / "data" / side, count=3, first=number * 10)
    run = kit.fine_tune(tmp_path / "data", tiny, out=tmp_path / "run", onnx=False)
    assert run.test.n == 9
    assert run.evaluation.n == 9
    assert any(line.startswith("on the held-out test images: error rate") for line in run.lines())
    assert pd.read_csv(tmp_path / "run" / "predictions.csv")["split"].tolist() == ["valid"] * 9 + ["test"] * 9
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["n"] == 9


def test_the_seed_repeats_a_run_and_test_time_augmentation_is_reported_beside_it(run, shapes, tiny, tmp_path):
    again = kit.fine_tune(shapes, tiny, out=tmp_path / "again", onnx=False, tta=2)
    assert (again.bundle / "model.safetensors").read_bytes() == (run.bundle / "model.safetensors").read_bytes()
    assert again.evaluation.predictions.equals(run.evaluation.predictions)
    configs = [json.loads((one.bundle / "config.json").read_text()) for one in (run, again)]
    assert configs[0]["metrics"] == configs[1]["metrics"]
    result = json.loads((again.folder / "result.json").read_text())
    assert result["error_rate"] == run.error_rate.value
    assert result["tta"] == again.views.figures() | {"views": 2}
    assert any(line.startswith("with test-time augmentation (2 views): error rate") for line in again.lines())
    assert json.loads((run.folder / "result.json").read_text())["tta"] is None


def test_early_stopping_says_which_epoch_was_kept_and_that_it_flatters(shapes, tiny, tmp_path):
    run = kit.fine_tune(shapes, tiny, out=tmp_path / "run", onnx=False, patience=1, epochs=2)
    chosen = json.loads((run.folder / "recipe.json").read_text())["chosen"]
    assert chosen["kept_epoch"] == run.history.best_epoch
    assert any("early stopping chose the weights by these images" in line for line in run.lines())


def test_looking_for_a_rate_alone_gives_the_rate_that_a_run_would_take(shapes, tiny, tmp_path, monkeypatch):
    from kit.pipeline import find_rate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kit.train.rates.STEPS", 30)
    curve = find_rate(shapes, tiny)
    assert list(tmp_path.iterdir()) == []
    run = kit.fine_tune(shapes, tiny, rate="auto", out="run", onnx=False)
    chosen = json.loads((run.folder / "recipe.json").read_text())["chosen"]
    assert chosen["rate"] == curve.suggestion


def test_a_run_shows_itself_in_a_notebook(run):
    assert str(run.error_rate) in run._repr_html_()
    assert run._repr_html_().count("data:image/png;base64") == 4


def test_an_argument_that_is_unknown_gets_a_suggestion(shapes):
    with pytest.raises(RecipeError, match="fine_tune has no argument 'epoch'. Did you mean \"epochs\""):
        kit.fine_tune(shapes, epoch=1)


def test_what_would_make_training_wrong_stops_before_it(tiny, tmp_path):
    write_shapes(tmp_path / "one", shapes=("circle",))
    with pytest.raises(DataError, match=r"one class only \(circle\)"):
        kit.fine_tune(tmp_path / "one", tiny, out=tmp_path / "runs" / "one")
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_is_taken_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(OutputError, match="exists and is not empty"):
        kit.fine_tune("nowhere", out=tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").exists()


def test_step_by_step_gives_what_the_one_call_gives(run, shapes, tiny):
    from kit import data, evaluate, model, train

    train.seed_everything(tiny.seed)
    table = data.table(shapes)
    dls = data.blocks(tiny).dataloaders(table)
    learn = model.learner(dls, tiny)
    train.fine_tune(learn, tiny)
    result = evaluate.evaluate(learn)
    assert result.predictions.equals(run.evaluation.predictions)


def test_fastais_own_arguments_pass_through(shapes, tiny, tmp_path):
    from fastai.vision.all import SGD, Callback, F1Score, LabelSmoothingCrossEntropy

    class Count(Callback):
        batches = 0

        def after_batch(self):
            Count.batches += self.training

    run = kit.fine_tune(
        shapes,
        tiny,
        out=tmp_path / "run",
        onnx=False,
        cbs=[Count()],
        metrics=[F1Score(average="macro")],
        opt_func=SGD,
        loss_func=LabelSmoothingCrossEntropy(),
        moms=(0.9, 0.8, 0.9),
        wd=0.2,
    )
    assert Count.batches == 4
    assert "f1_score" in run.history.rows[0]
    assert run.learner.opt_func is SGD
    assert (run.learner.wd, run.learner.moms) == (0.2, (0.9, 0.8, 0.9))
    assert run.error_rate.n == 6
