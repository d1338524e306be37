"""The command line, as a person or a script uses it: real processes, results on stdout, talk on stderr."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
import typer
from conftest import write_shapes
from typer.testing import CliRunner

from kit import Recipe
from kit.cli.main import application
from kit.cli.predict import predict
from kit.cli.serve import parse_size
from kit.errors import KitError

TINY = ["--arch", "test_resnet", "--weights", "none", "--size", "32", "--batch", "4"]
TINY += ["--workers", "0", "--freeze-epochs", "0", "--device", "cpu"]


def invoke(*arguments, expect: int = 0):
    """The command in this process, which has torch and fastai already."""
    done = CliRunner().invoke(application(), [str(one) for one in arguments])
    assert done.exit_code == expect, done.output
    return done


def kit(*arguments, expect: int = 0) -> subprocess.CompletedProcess:
    """Run the command with a wide, plain terminal; a wrong exit code shows what it said."""
    command = [sys.executable, "-m", "kit.cli.main", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_help_names_every_command_and_every_field_of_the_recipe_with_its_explanation():
    text = kit("--help").stdout
    assert all(name in text for name in ("demo", "check", "fine-tune", "evaluate", "predict"))
    text = kit("fine-tune", "--help").stdout
    for field in fields(Recipe):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "Passes over the training images in which all layers are trained." in text


def test_fine_tune_prints_the_error_rate_on_stdout_and_everything_else_on_stderr(shapes, tmp_path):
    done = kit("fine-tune", shapes, *TINY, "--no-onnx", "--out", tmp_path / "run")
    (line,) = done.stdout.splitlines()
    assert line.startswith("error_rate 0.")
    assert "(n=6, 95 % " in line
    assert "24 images of 3 classes: 18 train, 6 valid" in done.stderr
    assert "6 validation images are too few to tell" in done.stderr


def test_fine_tune_json_is_result_json(shapes, tmp_path):
    done = invoke("fine-tune", shapes, *TINY, "--out", tmp_path / "run", "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "run" / "result.json").read_text())
    assert (tmp_path / "run" / "bundle" / "model.onnx").is_file()


def events(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_lines_tell_programs_each_phase_epoch_and_the_result(shapes, tmp_path):
    done = invoke(
        "fine-tune", shapes, *TINY, "--layers", "whole", "--out", tmp_path / "run", "--json-lines", "--no-onnx"
    )
    start, phase, epoch, evaluate, result = events(done)
    assert start == {"event": "start", "folder": str(tmp_path / "run"), "images": {"train": 18, "valid": 6}}
    assert phase == {"event": "phase", "phase": "whole", "epochs": 1}
    assert (epoch["event"], epoch["epoch"], epoch["phase"]) == ("epoch", 1, "whole")
    assert {"train_loss", "valid_loss", "error_rate", "seconds"} <= set(epoch)
    assert evaluate == {"event": "phase", "phase": "evaluate"}
    figures = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == {"event": "result", "folder": str(tmp_path / "run")} | figures
    assert "24 images of 3 classes" in done.stderr


def test_json_lines_tell_errors_with_their_fix(tmp_path):
    done = invoke("fine-tune", tmp_path, "--json-lines", expect=1)
    (error,) = events(done)
    assert error["event"] == "error"
    assert "holds no images" in error["problem"]
    assert error["fix"].startswith("give the folder above the images")
    done = invoke("fine-tune", tmp_path, "--json-lines", "--json", expect=1)
    assert "--json and --json-lines both print the result" in str(done.exception)


def test_predict_prints_a_line_an_image_and_fails_only_when_all_do(run, shapes, tmp_path):
    (tmp_path / "bad.jpg").write_text("text")
    done = kit("predict", run.folder, shapes / "circle" / "00.png", tmp_path / "bad.jpg", "--top", "2")
    good, bad = done.stdout.splitlines()
    assert good.count("%") == 2
    assert bad.startswith(f"{tmp_path}/bad.jpg: error: not an image of the formats")
    assert "1 of 2 images predicted" in done.stderr
    kit("predict", run.folder, tmp_path / "bad.jpg", expect=1)


def test_predict_writes_csv_for_folders_and_globs(run, shapes, tmp_path):
    done = kit("predict", run.bundle, shapes / "square", f"{shapes}/circle/*0.png", "--out", tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert len(rows) == 9
    assert ",".join(rows[0]) == "path,prediction,probability,p_circle,p_square,p_triangle,unlike,error"
    assert done.stdout == ""
    assert "\r" not in done.stderr
    assert "no file matches" in kit("predict", run.bundle, f"{shapes}/*.gif", expect=1).stderr


def test_predict_and_the_page_write_the_same_csv(run, shapes, tmp_path):
    from kit import bundle
    from kit.serve.webpage import csv_text
    from kit.tasks import of

    (tmp_path / "bad.jpg").write_text("text")
    paths = [*map(str, sorted(shapes.glob("circle/*.png"))), str(tmp_path / "bad.jpg")]
    invoke("predict", run.bundle, *paths, "--out", tmp_path / "p.csv")
    predictor = bundle.load(run.bundle, many=False)
    task, vocab = of(predictor.task), predictor.vocab
    lines = [task.columns(vocab), *(task.csv_line(one, vocab) for one in predictor.predict(paths))]
    assert (tmp_path / "p.csv").read_text() == csv_text(lines)


def test_predict_in_bf16_says_by_how_much_it_differs(run, shapes, tmp_path, capsys):
    predict(run.bundle, [str(shapes / "circle")], precision="bf16")
    done = capsys.readouterr()
    assert re.search(
        r"bf16: on the first 8 images a probability differs from that of fp32 by at most 0\.0\d\d\d,", done.err
    )
    assert len(done.out.splitlines()) == 8
    (tmp_path / "bad.jpg").write_text("text")
    with pytest.raises(typer.Exit):
        predict(run.bundle, [str(tmp_path / "bad.jpg")], precision="bf16")
    assert "bf16: none of the first 1 images could be opened to compare it with fp32" in capsys.readouterr().err


def test_evaluate_measures_anew_with_the_bundles_own_label_rule(run, tmp_path):
    folder = write_shapes(tmp_path / "new", count=4, first=100)
    text = kit("evaluate", run.folder, folder, "--out", tmp_path / "p.csv").stdout
    assert "(n=12, 95 % " in text
    assert "precision" in text
    figures = json.loads(invoke("evaluate", run.folder, folder, "--json").stdout)
    assert figures["n"] == 12
    assert f"error rate {figures['error_rate']:.4f}" in text
    refused = kit("evaluate", run.folder, folder, "--label", "^(.)", expect=1)
    assert "labels that the model never saw: 1; it knows: circle, square, triangle" in refused.stderr


def test_evaluate_leaves_out_what_the_bundle_was_trained_on(run, shapes):
    done = invoke("evaluate", run.folder, shapes, "--json")
    assert "left out 18 of 24 images: the bundle was trained on them" in done.stderr
    assert json.loads(done.stdout)["error_rate"] == run.error_rate.value


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("os:unlink", "kit runs no code that a bundle names"),
        ("table", "this bundle was trained on a table of labels"),
    ],
)
def test_a_label_rule_in_a_bundle_is_never_run_as_code(run, shapes, tmp_path, label, text):
    copy = shutil.copytree(run.bundle, tmp_path / "bundle")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"label": label}))
    (copy / "config.json.sha256").unlink()
    before = sorted(shapes.rglob("*"))
    assert text in kit("evaluate", copy, shapes, expect=1).stderr
    assert sorted(shapes.rglob("*")) == before


def test_check_reports_and_its_exit_code_says_whether_training_would_work(shapes, tmp_path):
    done = invoke("check", shapes, "--show", tmp_path / "batch.png", *TINY)
    assert "24 images of 3 classes" in done.stdout
    assert "OpenImage          RGB, 64 x 64 pixels" in done.stderr
    assert (tmp_path / "batch.png").stat().st_size > 5000
    write_shapes(tmp_path / "one", shapes=("circle",))
    report = json.loads(kit("check", tmp_path / "one", "--json", expect=1).stdout)
    assert report["findings"][0]["severity"] == "error"
    few = invoke("check", shapes, "--batch", "64", "--show", tmp_path / "few.png")
    assert "do not fill" not in few.stdout and (tmp_path / "few.png").stat().st_size > 5000
    too_few = invoke("check", shapes, "--layers", "whole", "--batch", "64", "--show", tmp_path / "no.png", expect=1)
    assert "18 training images do not fill one batch of 64: say --batch 4" in too_few.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fine-tune", "nowhere"], "nowhere is not there."),
        (["fine-tune", "sample", "--resize", "cropp"], 'Did you mean "crop"?'),
        (["predict", "nowhere", "x.jpg"], "nowhere is no bundle"),
        (["predict", "nowhere"], "Missing argument"),
        (["predict", "nowhere", "x.jpg", "--out", "no/such/folder.csv"], "there is no folder no/such"),
    ],
)
def test_an_error_is_a_few_lines_with_the_fix_and_never_a_traceback(arguments, text, tmp_path):
    out = ["--out", tmp_path / "run"] if arguments[0] == "fine-tune" else []
    expect = 2 if "Missing" in text else 1
    done = kit(*arguments, *out, expect=expect)
    assert text in done.stderr
    assert len(done.stderr.splitlines()) < 14


@pytest.mark.parametrize(
    "command",
    [
        "fine-tune nowhere", "fine-tune nowhere --folds 3", "rates nowhere", "export nowhere",
        "convert nowhere.pkl out --images nowhere", "serve nowhere",
    ],
)  # fmt: skip
def test_a_wrong_name_is_told_before_anything_is_loaded_that_takes_seconds(command):
    code = f"""
import atexit, sys
from kit.cli.main import run
atexit.register(lambda: print(*(set(sys.modules) & {{"torch", "fastai", "gradio"}})))
sys.argv = ["kit", *{command.split()!r}]
run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (1, [])
    assert "nowhere" in done.stderr


def test_a_size_is_a_number_with_or_without_its_unit():
    assert [parse_size(text) for text in ("500", "3 kb", "10mb", "2GB")] == [500, 3000, 10_000_000, 2_000_000_000]
    for text in ("", "much", "-1mb", "1.5mb", "10 tb", "1" * 13):
        with pytest.raises(KitError, match=f"--max-upload '{text}' is no size"):
            parse_size(text)
