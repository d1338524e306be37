"""Several classes an image, and numbers, as they are served: over REST, on the page, as CSV and as a Space."""

import copy
import csv
import io
import json
import re
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from task_bundles import multilabel, regression

from kit.bundle import Predictor
from kit.errors import ImageError
from kit.serve import rest, space, webpage
from kit.serve.concurrency import Capacity
from kit.serve.responses import State
from kit.tasks import Prediction, of
from kit.tasks.base import SCORE
from kit.tasks.text import shown
from kit.views.page import about_html
from kit.views.view import view_of

MODULES = ("network", "images", "image_limits", "errors", "smoke", "tasks")


@pytest.fixture(scope="module")
def several(tiny, tmp_path_factory) -> Predictor:
    return multilabel(tmp_path_factory.mktemp("several"), tiny)


@pytest.fixture(scope="module")
def numbers(tiny, tmp_path_factory) -> Predictor:
    return regression(tmp_path_factory.mktemp("numbers"), tiny)


@pytest.fixture(scope="module", params=["several", "numbers"])
def predictor(request) -> Predictor:
    return request.getfixturevalue(request.param)


def photo_of(predictor: Predictor) -> Path:
    return predictor.folder.parent.parent / "02.png"


def client_of(predictor: Predictor) -> TestClient:
    app = FastAPI()
    app.include_router(rest.routes(predictor, Capacity(12), ThreadPoolExecutor(2), State(ready=True)))
    return TestClient(app)


def post(predictor: Predictor) -> dict:
    """The row of a good image, after that of a bad one was looked at."""
    files = [("image", ("bad.jpg", b"no image")), ("image", ("02.png", photo_of(predictor).read_bytes()))]
    answer = client_of(predictor).post("/v1/predict", files=files)
    assert answer.status_code == 200, answer.text
    bad, good = answer.json()["predictions"]
    assert bad.keys() == good.keys()
    assert "not an image" in bad["error"]
    assert good["error"] is None
    assert not any(bad[name] for name in ("labels", "numbers", "probabilities") if name in bad)
    return good


def test_rest_says_all_classes_of_an_image_and_the_probability_of_each(several):
    expected, row = several.predict(photo_of(several))[0], post(several)
    assert list(row) == ["name", "labels", "probabilities", "unlike", "error"]
    assert row["labels"] == list(expected.labels)
    assert row["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_rest_says_the_numbers_of_an_image_by_name(numbers):
    expected, row = numbers.predict(photo_of(numbers))[0], post(numbers)
    assert list(row) == ["name", "numbers", "unlike", "error"]
    assert list(row["numbers"]) == ["side", "left"]
    assert row["numbers"] == pytest.approx(expected.numbers, rel=1e-6)
    assert all(value == round(value, 6) for value in row["numbers"].values())


def test_an_image_without_a_class_has_an_empty_list_and_one_that_cannot_be_opened_has_none():
    config = {"vocab": ["cat", "dog"], "thresholds": [0.5, 0.5]}
    nothing = Prediction("", **of("multilabel").answer({"cat": 0.1, "dog": 0.1}, config))
    assert rest.row("", nothing, "multilabel")["labels"] == []
    assert rest.row("", Prediction("", error="bad"), "multilabel")["labels"] is None


def test_rest_and_the_page_give_programs_the_same_answer(predictor):
    photo = photo_of(predictor)
    answer = client_of(predictor).post("/v1/predict", files={"image": photo.open("rb")})
    (row,) = answer.json()["predictions"]
    assert webpage.answer(predictor, [str(photo)]) == row


def test_rest_describes_a_model_of_several_classes(several):
    said = client_of(several).get("/v1/model").json()
    assert said["task"] == "multilabel"
    assert said["classes"] == ["circle", "square"]
    assert said["f1"] == {name: several.config["metrics"][name] for name in ("f1", "n", "low", "high")}
    assert list(said["thresholds"].values()) == several.config["thresholds"]
    assert said["per_class"].keys() == {"circle", "square"}
    assert "error_rate" not in said


def test_rest_describes_a_model_of_numbers(numbers):
    said = client_of(numbers).get("/v1/model").json()
    assert said["task"] == "regression"
    assert said["numbers"] == ["side", "left"]
    assert said["r2"].keys() == {"r2", "n", "low", "high"}
    assert list(said["range"]["low"].values()) == numbers.config["range"]["low"]
    assert said["per_target"]["left"]["mae"] == numbers.config["metrics"]["per_target"]["left"]["mae"]
    assert "/" not in json.dumps(said).replace("timm/test_resnet", "")


def test_the_page_of_every_task_shows_a_photo_and_refuses_what_is_none(predictor, tmp_path):
    seen = webpage.predict_one(predictor, str(photo_of(predictor)))
    one = predictor.predict(photo_of(predictor))[0]
    for number in one.numbers.values():
        assert f"<span>{shown(number)}</span>" in seen
    for name in one.labels or ():
        assert name in seen
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(ImageError, match="not an image of the formats"):
        webpage.predict_one(predictor, str(tmp_path / "bad.jpg"))
    blocks = webpage.page(predictor)
    assert blocks.title == of(predictor.task).ability(predictor.vocab)


def test_the_csv_of_many_is_that_of_the_task(several, numbers):
    heads = {several: ["prediction", "p_circle", "p_square"], numbers: ["predicted_side", "predicted_left"]}
    for predictor, head in heads.items():
        photo = photo_of(predictor)
        (card,) = webpage.predict_some(predictor, photo, 0)["cards"]
        columns = webpage.csv_text([of(predictor.task).columns(predictor.vocab)])
        (row,) = csv.DictReader(io.StringIO(columns + card["line"]))
        assert list(row) == ["path", *head, "unlike", "error"]
        one = predictor.predict(photo)[0]
        assert row.get("prediction") == one.label
        for name, number in one.numbers.items():
            assert float(row[f"predicted_{name}"]) == pytest.approx(number, rel=1e-6)


def test_about_says_f1_with_its_interval_and_the_threshold_of_every_class(several):
    seen, metrics = about_html(several.config, several.folder), several.config["metrics"]
    assert "Mean F1" in seen
    for value in (metrics["f1"], metrics["low"], metrics["high"]):
        assert SCORE(value) in seen
    for row in metrics["per_class"].values():
        assert f">{shown(row['threshold'])}</td>" in seen
    assert "average precision" in seen
    assert "onfusion" not in seen
    assert seen.count('src="data:image/jpeg') == len(several.config["mistakes"])
    assert ("predicted: <b>" in seen) == bool(several.config["mistakes"])
    assert "may find them in any image" in seen


def test_about_says_of_each_number_how_far_off_it_is_with_its_interval(numbers):
    seen, rows_ = about_html(numbers.config, numbers.folder), numbers.config["metrics"]["per_target"]
    assert "Mean absolute error" in seen
    for name, row in rows_.items():
        assert f"{shown(row['mae'])} <small>{name}</small>" in seen
        assert f"95 % interval: {shown(row['low'])} to {shown(row['high'])}" in seen
    assert "Largest errors" in seen
    assert re.search(r"true: <b>side [\d.]+, left -1\d\d\.5</b><br>predicted: <b>side ", seen)
    assert "onfusion" not in seen
    assert "Its answers never lie outside these ranges: side " in seen


def test_the_headline_is_a_sentence_of_the_task(several, numbers):
    measured = f"measured on {several.config['metrics']['n']} images that it was not trained on"
    f1, low, high = (SCORE(several.config["metrics"][key]) for key in ("f1", "low", "high"))
    assert view_of(several.config).sentence() == f"Mean F1: {f1} (95 % interval: {low} to {high}), {measured}"
    side, left = (shown(row["mae"]) for row in numbers.config["metrics"]["per_target"].values())
    expected = rf"Mean absolute error: side {side} \(95 % interval: .*\), left {left} \(95 % interval: .*\), "
    assert re.match(expected, view_of(numbers.config).sentence())


@pytest.mark.parametrize("value", [None, -0.4, 0.8])
def test_r2_is_said_in_words_where_it_can_be_told_and_where_not(numbers, value):
    config = copy.deepcopy(numbers.config)
    config["metrics"] |= {"r2": value, "low": value, "high": value}
    said = {None: "do not vary", -0.4: "no better than always answering the mean", 0.8: "80 % of the variation is"}
    assert said[value] in about_html(config, numbers.folder)
    config["metrics"]["per_target"] = {}
    assert view_of(config).sentence().startswith("Measured on")


HUGE = {"circle": {"n": 10**400, "threshold": 1}, "side": dict.fromkeys(("mae", "low", "high", "rmse"), 10**400)}
WRONG = (None, 7, "x", [], [1], {"circle": 1, "side": 1}, {"circle": {"n": "x"}, "side": {"mae": [1]}}, HUGE)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:20])
def test_figures_that_are_none_are_left_out_and_the_page_stands(several, numbers, run, wrong):
    from kit import bundle

    for predictor in (several, numbers, bundle.load(run.bundle)):
        config = copy.deepcopy(predictor.config)
        for name in ("per_class", "per_target", "exact", "mean_average_precision", "most_confused"):
            config["metrics"][name] = wrong
        page = webpage.page(Predictor(config, predictor.engine, predictor.folder))
        assert page.title == of(config["task"]).ability(config["vocab"])
        assert "by class" not in about_html(config, predictor.folder)
        assert webpage.predict_one(Predictor(config, predictor.engine, predictor.folder), str(photo_of(several)))


def test_a_mistake_whose_label_is_no_number_is_shown_as_it_stands(numbers):
    config = copy.deepcopy(numbers.config)
    config["mistakes"][0] |= {"label": "<b>x</b>;1", "prediction": "1;2;3"}
    seen = about_html(config, numbers.folder)
    assert "true: <b>&lt;b&gt;x&lt;/b&gt;;1</b><br>predicted: <b>1, 2, 3</b>" in seen


@pytest.fixture(scope="module")
def folders(several, numbers, tmp_path_factory) -> dict[str, Path]:
    """A Space of each task, not started."""
    made = {}
    for predictor in (several, numbers):
        made[predictor.task] = tmp_path_factory.mktemp(predictor.task)
        space.write_files(predictor, made[predictor.task], "shapes")
    return made


@pytest.fixture
def app(predictor, folders, tmp_path, monkeypatch) -> dict:
    """What app.py of a task's Space defines, with `tmp_path` as the place of uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return run_file(folders[predictor.task], "app.py", monkeypatch)


def run_file(folder: Path, name: str, monkeypatch) -> dict:
    monkeypatch.syspath_prepend(folder)
    for module in MODULES:
        monkeypatch.delitem(sys.modules, module, raising=False)
    return runpy.run_path(str(folder / name))


def test_the_space_answers_as_the_bundle_in_every_task(app, predictor, folders, tmp_path, monkeypatch):
    same = run_file(folders[predictor.task], "smoke.py", monkeypatch)["same"]
    model = json.loads((folders[predictor.task] / "model.json").read_text())
    recorded = json.loads((folders[predictor.task] / "smoke.json").read_text())
    assert model["task"] == predictor.task
    recorded["photo.png"] = of(predictor.task).json(predictor.predict(photo_of(predictor))[0])
    for name, expected in recorded.items():
        source = photo_of(predictor) if name == "photo.png" else folders[predictor.task] / name
        (tmp_path / Path(name).name).write_bytes(source.read_bytes())
        said = app["answer"]({"path": str(tmp_path / Path(name).name)})
        width = {name: high - low for name, (low, high) in of(model["task"]).ranges(model).items()}
        assert same(said, expected, width), (said, expected)


def test_an_answer_that_differs_is_told_in_every_task(folders, monkeypatch):
    same = run_file(folders["multilabel"], "smoke.py", monkeypatch)["same"]
    several = {"labels": ["a"], "unlike": None, "probabilities": {"a": 0.6, "b": 0.1}}
    assert same(several | {"more": 1}, several, {})
    for other in ({"labels": []}, {"unlike": True}, {"probabilities": {"a": 0.61, "b": 0.1}}, {"probabilities": {}}):
        assert not same(several | other, several, {})
    width = {"mass": 1e-6, "age": 1e6}
    numbers = {"numbers": {"mass": 5e-7, "age": 5e5}, "unlike": None}
    assert same({"numbers": {"mass": 5.001e-7, "age": 500_100.0}, "unlike": None}, numbers, width)
    assert not same({"numbers": {"mass": 6e-7, "age": 5e5}, "unlike": None}, numbers, width)
    assert not same({"unlike": None}, numbers, width)


def test_the_page_of_the_space_says_the_answer_of_every_task(app, predictor, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo_of(predictor).read_bytes())
    remark, likeliest, seen, choice = app["look"]({"path": str(tmp_path / "photo.png")})
    one = predictor.predict(photo_of(predictor))[0]
    assert (likeliest or {}) == pytest.approx(one.probabilities, abs=1e-5)
    for name in one.labels or ():
        assert f"## {name} " in remark.value
    for name, number in one.numbers.items():
        assert f"## {name} {number:.4g}\noff by " in remark.value
    assert remark.visible
    assert seen.shape == (480, 480, 3)
    assert {name for name, _ in choice.choices} == set(predictor.vocab)
    other = app["look"]({"path": str(tmp_path / "photo.png")}, choice.choices[-1][0])[3]
    assert other.value == choice.choices[-1][0]
    assert isinstance(app["build"](), gr.Blocks)


def test_names_in_the_spaces_headings_are_shown_as_they_are(app):
    assert app["plain"]("a_b*<i>") == r"a\_b\*\<i\>"


def test_the_spaces_model_and_readme_say_what_the_task_needs(folders, several, numbers):
    model = json.loads((folders["multilabel"] / "model.json").read_text())
    assert model["thresholds"] == several.config["thresholds"]
    assert model["summary"].startswith("Mean F1: ")
    assert "95 % interval" in model["summary"]
    model = json.loads((folders["regression"] / "model.json").read_text())
    assert model["range"] == numbers.config["range"]
    assert model["metrics"]["per_target"].keys() == {"side", "left"}
    assert model["summary"].startswith("Mean absolute error: side ")
    for task, tag in (("multilabel", "image-classification"), ("regression", "image-regression")):
        readme = (folders[task] / "README.md").read_text(encoding="utf-8")
        assert f'tags: ["{tag}"]' in readme
        assert "python smoke.py" in readme
        assert "kit predict BUNDLE" not in readme
