"""The apps, run as a person runs them, on drawn animals in Oxford's names and on real photos."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

APPS = Path(__file__).parent.parent / "apps"


def app(name: str, *arguments, cwd, expect: int = 0, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, APPS / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def test_without_network_pets_says_in_three_lines_what_is_missing_and_which_file_to_put_where(tmp_path):
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "KIT_CACHE": str(tmp_path)}
    said = app("pets.py", cwd=tmp_path, expect=1, **nowhere).stderr.strip().splitlines()
    assert len(said) == 3
    assert '"oxford-pets.tar.gz" is missing' in said[0]
    assert "s3.amazonaws.com" in said[1]
    assert "www.robots.ox.ac.uk" in said[1]
    assert said[2].endswith(f"put it at {tmp_path / 'oxford-pets.tar.gz'}")


@pytest.mark.slow
def test_digits_by_hand_ends_above_97_percent_on_held_out_digits(tmp_path):
    said = app("digits_by_hand.py", cwd=tmp_path).stdout
    rates = [float(rate) for rate in re.findall(r"error rate (0\.\d+) \(n=449", said)]
    assert len(rates) == 4
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.03


@pytest.mark.slow
def test_shapes_finds_several_classes_in_an_image(tmp_path):
    done = app("shapes.py", "--count", 200, "--epochs", 4, cwd=tmp_path)
    assert float(re.search(r"^f1 (0\.\d+) \(n=\d+, 95 % ", done.stdout, re.M).group(1)) > 0.75
    for shape in ("circle", "cross", "square", "triangle"):
        assert re.search(rf"^{shape} +\d+ ", done.stdout, re.M)


@pytest.mark.slow
def test_dials_reads_numbers(tmp_path):
    done = app("dials.py", "--count", 240, "--epochs", 7, cwd=tmp_path)
    assert float(re.search(r"^reading: off by (\d+\.\d+) on average", done.stdout, re.M).group(1)) < 20


@pytest.mark.shared
@pytest.mark.slow
def test_pets_fine_tunes_on_real_photos(pets, tmp_path):
    done = app("pets.py", "--images", pets, "--arch", "resnet18", cwd=tmp_path)
    assert "error_rate 0." in done.stdout
    assert "(n=74, 95 % " in done.stdout


@pytest.mark.shared
@pytest.mark.slow
def test_pets_validates_on_the_images_of_fastais_randomsplitter(pets):
    from fastai.vision.all import RandomSplitter

    from kit import data

    table = data.table(pets, label="is_cat", split="random", valid=0.2, seed=42)
    train, valid = RandomSplitter(valid_pct=0.2, seed=42)(range(len(table)))
    assert table.index[table["split"] == "valid"].tolist() == sorted(valid)
    assert table.index[table["split"] == "train"].tolist() == sorted(train)


@pytest.mark.shared
@pytest.mark.slow
def test_breeds_fine_tunes_37_breeds_with_presizing(pets, tmp_path):
    done = app("breeds.py", "--images", pets, "--arch", "resnet18", cwd=tmp_path)
    assert "37 classes" in done.stderr
    assert "error_rate 0." in done.stdout


@pytest.mark.shared
@pytest.mark.slow
def test_a_loaded_bundle_predicts_as_the_learner_did_on_real_photos(pets, tmp_path):
    import numpy as np

    import kit
    from kit import bundle

    run = kit.fine_tune(pets, label=kit.is_cat, weights="bundled", size=128, batch=16, out=tmp_path / "run")
    with run.learner.no_bar():
        theirs, _ = run.learner.get_preds()
    predictions = bundle.load(run.bundle).predict(run.evaluation.predictions["path"].tolist())
    ours = np.array([[one.plain[name] for name in run.evaluation.vocab] for one in predictions])
    assert np.abs(ours - theirs.numpy()).max() < 1e-5


@pytest.mark.slow
def test_the_demo_reaches_its_result_and_names_the_next_commands(tmp_path):
    command = [sys.executable, "-m", "kit.cli.main", "demo", "--out", tmp_path / "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert result["n"] >= 100
    assert result["error_rate"] < 0.15
    named = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("what it gets most wrong")]
    assert named and Path(named[0]).is_file()
    commands = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("  kit ")]
    assert commands == ["serve", "predict", "check", "fine-tune"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first_model", "lesson"])
def test_the_notebooks_run_from_top_to_bottom(tmp_path, name):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(APPS / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_each_chapter_of_the_lesson_ends_in_a_picture_and_an_exercise_whose_answer_is_hidden():
    import nbformat

    cells = nbformat.read(APPS / "lesson.ipynb", as_version=4).cells
    starts = [place for place, cell in enumerate(cells) if cell.source.startswith("## ")]
    assert [cells[place].source.split(".")[0] for place in starts] == [f"## {number}" for number in range(1, 11)]
    for start, end in pairwise([*starts, len(cells) - 1]):
        *_, shown, exercise = cells[start:end]
        assert "image/png" in shown.outputs[-1]["data"]
        question, answer = exercise.source.split("<details><summary>Answer</summary>")
        assert question.startswith("**Exercise.** ")
        assert answer.strip().endswith("</details>")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
