"""Several classes an image, and numbers, as they are served: over REST, on the page, as CSV and as a Space."""

import copy
import csv
import io
import json
import re
import runpy
import sys
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from task_bundles import multilabel, regression

from kit.bundle import Predictor
from kit.bundle.prediction import Prediction, of_several
from kit.manifest import EXAMPLES
from kit.serve import about, answers, figures, render, rest, rows, space, webpage, words
from kit.serve.gate import Gate
from kit.serve.reply import State
from kit.task import shown, title_of

MODULES = ("network", "images", "bombs", "errors", "smoke")
PICTURE = Image.new("RGB", (8, 8))
SEVERAL = {"vocab": ["cat", "dog", "fox"], "task": "multilabel", "thresholds": [0.5, 0.2, 0.9], "metrics": {}}
NUMBERS = {
    "vocab": ["age", "mass"],
    "task": "regression",
    "range": {"low": [0, -5.0], "high": [100, 5.0], "bounded": True},
    "metrics": {"per_target": {"age": {"mae": 10.0, "low": 8.0, "high": 12.0, "rmse": 13.0, "r2": 0.9}}},
}


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
    rest.handlers(app)
    app.include_router(rest.routes(predictor, Gate(2, 10), State(ready=True)))
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
    nothing = of_several("", {"cat": 0.1, "dog": 0.1}, [0.5, 0.5], None)
    assert rest.row("", nothing, "multilabel")["labels"] == []
    assert rest.row("", Prediction("", None, None, {}, "bad"), "multilabel")["labels"] is None


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
    assert "/" not in json.dumps(said)


def test_the_page_says_the_classes_and_tells_those_that_it_does_not_see_apart():
    one = of_several("", {"cat": 0.6, "dog": 0.3, "fox": 0.8}, SEVERAL["thresholds"], None)
    seen = render.verdict(one, np.ones((3, 2, 2)), SEVERAL, PICTURE, 0.01)
    assert "<h2><b>cat, dog</b></h2>" in seen
    sees, not_seen = re.findall(r"<fieldset.*?</fieldset>", seen)
    assert re.findall(r"<span>(\w+)</span><em>(.*?)</em>", sees) == [("cat", "60.0 %"), ("dog", "30.0 %")]
    assert "It does not see" in not_seen
    assert re.findall(r"<span>(\w+)</span><em>(.*?)</em>", not_seen) == [("fox", "80.0 %")]
    assert re.findall(r"--mark:([\d.]+)", seen) == ["0.5000", "0.2000", "0.9000"]
    assert seen.count('type="radio"') == seen.count('class="heat"') == 3
    assert seen.count(" checked>") == 1


def test_an_image_of_none_of_the_classes_is_said_to_be_so():
    one = of_several("", {"cat": 0.1, "dog": 0.1, "fox": 0.2}, SEVERAL["thresholds"], None)
    seen = render.verdict(one, None, SEVERAL, PICTURE, 0.01)
    assert "<h2><b>none of the classes</b></h2>" in seen
    assert "It sees" not in seen
    assert answers.in_sight(one) == ["fox", "cat", "dog"]


def test_a_class_that_is_said_has_a_row_however_many_are_likelier():
    shares = {f"c{place}": 0.9 - place / 100 for place in range(9)}
    one = of_several("", shares, [1.0] * 8 + [0.5], None)
    assert answers.in_sight(one)[:3] == ["c8", "c0", "c1"]
    assert len(answers.in_sight(one)) == answers.TOP


def test_the_page_says_each_number_large_where_it_lies_and_how_far_off_it_is():
    one = Prediction("", None, None, {}, numbers={"age": 41.2345, "mass": 9.0})
    seen = render.verdict(one, np.ones((2, 2, 2)), NUMBERS, PICTURE, 0.01)
    assert "<b>age</b> <span>41.23</span>" in seen
    assert "<b>mass</b> <span>9</span>" in seen
    assert "--low:0.3123;--high:0.5123;--at:0.4123" in seen
    assert "--low:1.0000;--high:1.0000;--at:1.0000" in seen
    assert seen.count("on average") == 1
    assert "off by 10 on average" in seen
    assert seen.count('type="radio"') == 2
    assert "what speaks for a higher one" in seen


def test_a_single_number_has_nothing_to_choose_and_its_heat_map_all_the_same():
    alone = NUMBERS | {"vocab": ["age"], "range": {"low": [0], "high": [100], "bounded": False}}
    one = Prediction("", None, None, {}, numbers={"age": 41.2})
    seen = render.verdict(one, np.ones((1, 2, 2)), alone, PICTURE, 0.01)
    assert 'type="radio"' not in seen
    assert seen.count('class="heat"') == 1
    assert "The picture shows what speaks for a higher number" in seen
    assert "among the training images" in seen


def test_names_are_text_and_never_html_in_every_task():
    evil = "<script>alert(1)</script>"
    numbers = json.loads(json.dumps(NUMBERS).replace("age", evil))
    several = SEVERAL | {"vocab": [evil, "dog", "fox"]}
    measured = Prediction(evil, None, None, {}, numbers={evil: 4.0, "mass": 0.0})
    sorted_out = of_several(evil, {evil: 0.9, "dog": 0.1, "fox": 0.1}, SEVERAL["thresholds"], True)
    for one, config in ((measured, numbers), (sorted_out, several)):
        seen = render.verdict(one, None, config, PICTURE, 1) + rows.table([one], config, 1, 1) + figures.table(config)
        assert "<script" not in seen
        assert "&lt;script" in seen


def test_the_page_of_every_task_shows_a_photo_and_says_why_another_cannot_be_opened(predictor, tmp_path):
    seen = webpage.predict_one(predictor, str(photo_of(predictor)))
    one = predictor.predict(photo_of(predictor))[0]
    for number in one.numbers.values():
        assert f"<span>{shown(number)}</span>" in seen
    for name in one.labels or ():
        assert name in seen
    (tmp_path / "bad.jpg").write_text("no image")
    assert "Not an image of the formats" in webpage.predict_one(predictor, str(tmp_path / "bad.jpg"))
    blocks = webpage.page(predictor)
    assert blocks.title == ", ".join(predictor.vocab)


def test_the_table_of_many_has_a_column_a_class_and_marks_those_said():
    some = [of_several("a.png", {"cat": 0.6, "dog": 0.1, "fox": 0.1}, SEVERAL["thresholds"], None)]
    seen = rows.table([*some, Prediction("b.png", None, None, {}, "bad")], SEVERAL, 2, 2)
    assert re.findall(r">(\w+)</button>", seen) == ["file", "prediction", "cat", "dog", "fox"]
    assert '<td class="said" data-value="0.6">60.0 %</td><td data-value="0.1">10.0 %</td>' in seen
    assert "1 of 2 classified, 1 could not be opened" in seen
    bad = seen[seen.index('class="bad"') :]
    assert bad.count("<td") == 4
    many = SEVERAL | {"vocab": [f"c{place}" for place in range(40)]}
    assert re.findall(r">(\w+)</button>", rows.table([], many, 0, 0)) == ["file", "prediction"]


def test_the_table_of_many_sorts_numbers_by_all_their_digits():
    some = [Prediction("a.png", None, None, {}, numbers={"age": 123456.75, "mass": -2.0})]
    seen = rows.table([*some, Prediction("b.png", None, None, {}, "bad")], NUMBERS, 2, 2)
    assert '<td data-value="123456.75">123,457</td><td data-value="-2.0">-2</td>' in seen
    assert seen.count('data-value="-Infinity"') == 2
    assert "1 of 2 measured" in seen


def test_the_csv_of_many_is_that_of_the_task(several, numbers, tmp_path):
    heads = {several: ["prediction", "p_circle", "p_square"], numbers: ["predicted_side", "predicted_left"]}
    for predictor, head in heads.items():
        photo = photo_of(predictor)
        path = list(webpage.predict_many(predictor, [str(photo)]))[-1][1].value["path"]
        (row,) = csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8")))
        assert list(row) == ["path", *head, "unlike", "error"]
        one = predictor.predict(photo)[0]
        assert row.get("prediction") == one.label
        for name, number in one.numbers.items():
            assert float(row[f"predicted_{name}"]) == pytest.approx(number, rel=1e-6)


def test_a_number_that_is_negative_stays_a_number_in_the_csv(tmp_path):
    one = Prediction("=a.png", None, None, {}, numbers={"age": -1.5, "mass": 2.0})
    path = webpage.write_csv([one], NUMBERS["vocab"], tmp_path, "regression")
    assert Path(path).read_text().splitlines()[1].split(",")[:2] == ["'=a.png", "-1.5"]


def test_about_says_f1_with_its_interval_and_the_threshold_of_every_class(several):
    seen, metrics = about.card(several.config, several.folder), several.config["metrics"]
    assert "How well it finds the classes" in seen
    for value in (metrics["f1"], metrics["low"], metrics["high"]):
        assert words.share(value) in seen
    for row in metrics["per_class"].values():
        assert f">{shown(row['threshold'])}</td>" in seen
    assert "average precision" in seen
    assert "onfusion" not in seen
    assert seen.count('src="data:image/jpeg') == len(several.config["mistakes"])
    assert ("it said" in seen) == bool(several.config["mistakes"])
    assert "may find them in any image" in seen


def test_about_says_of_each_number_how_far_off_it_is_with_its_interval(numbers):
    seen, rows_ = about.card(numbers.config, numbers.folder), numbers.config["metrics"]["per_target"]
    assert "How far off it is" in seen
    for name, row in rows_.items():
        assert f"{shown(row['mae'])} <small>{name}</small>" in seen
        assert f"95 % interval: {shown(row['low'])} to {shown(row['high'])}" in seen
    assert "Where it was farthest off" in seen
    assert re.search(r"is <b>side [\d.]+, left -1\d\d\.5</b>; it said <b>side ", seen)
    assert "onfusion" not in seen
    assert "It never answers beyond side " in seen


def test_the_headline_is_a_sentence_of_the_task(several, numbers):
    measured = f"on {several.config['metrics']['n']} images that it was not trained on"
    assert words.headline(several.config) == f"F1 {several.config['metrics']['f1']:.3f} {measured}"
    by = [shown(row["mae"]) for row in numbers.config["metrics"]["per_target"].values()]
    expected = f"Off by {by[0]} in side and {by[1]} in left on average, on "
    assert words.headline(numbers.config).startswith(expected)
    assert "(95 % interval: " in words.headline(numbers.config, interval=True)


@pytest.mark.parametrize("value", [None, -0.4, 0.8])
def test_r2_is_said_in_words_where_it_can_be_told_and_where_not(numbers, value):
    config = copy.deepcopy(numbers.config)
    config["metrics"] |= {"r2": value, "low": value, "high": value}
    said = {None: "do not vary", -0.4: "no better than always answering the mean", 0.8: "<strong>80 %</strong>"}
    assert said[value] in figures.rate(config)
    config["metrics"]["per_target"] = {}
    assert words.headline(config).startswith("Measured on" if value is None else f"R2 {value:.3f} on")


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
        assert page.title == title_of(config["vocab"], config["task"])
        assert "by class" not in about.card(config, predictor.folder)
        assert webpage.predict_one(Predictor(config, predictor.engine, predictor.folder), str(photo_of(several)))


def test_a_mistake_whose_label_is_no_number_is_shown_as_it_stands(numbers):
    config = copy.deepcopy(numbers.config)
    config["mistakes"][0] |= {"label": "<b>x</b>;1", "prediction": "1;2;3"}
    seen = about.card(config, numbers.folder)
    assert "is <b>&lt;b&gt;x&lt;/b&gt;;1</b>; it said <b>1, 2, 3</b>" in seen


@pytest.fixture(scope="module")
def folders(several, numbers, tmp_path_factory) -> dict[str, Path]:
    """A Space of each task, not started."""
    made = {}
    for predictor in (several, numbers):
        made[predictor.task] = tmp_path_factory.mktemp(predictor.task)
        space.write_files(predictor, made[predictor.task], title_of(predictor.vocab, predictor.task))
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
    assert len(recorded) == 1 + len(list((predictor.folder / EXAMPLES).glob("*.jpg"))), "a pattern and the examples"
    for name, expected in recorded.items():
        (tmp_path / Path(name).name).write_bytes((folders[predictor.task] / name).read_bytes())
        said = app["answer"]({"path": str(tmp_path / Path(name).name)})
        assert same(said, expected, model.get("range", {})), (said, expected)


def test_an_answer_that_differs_is_told_in_every_task(folders, monkeypatch):
    same = run_file(folders["multilabel"], "smoke.py", monkeypatch)["same"]
    several = {"labels": ["a"], "unlike": None, "probabilities": {"a": 0.6, "b": 0.1}}
    assert same(several | {"more": 1}, several, {})
    for other in ({"labels": []}, {"unlike": True}, {"probabilities": {"a": 0.61, "b": 0.1}}, {"probabilities": {}}):
        assert not same(several | other, several, {})
    ranges = {"mass": [0, 1e-6], "age": [0, 1e6]}
    numbers = {"numbers": {"mass": 5e-7, "age": 5e5}, "unlike": None}
    assert same({"numbers": {"mass": 5.001e-7, "age": 500_100.0}, "unlike": None}, numbers, ranges)
    assert not same({"numbers": {"mass": 6e-7, "age": 5e5}, "unlike": None}, numbers, ranges)
    assert not same({"unlike": None}, numbers, ranges)


def test_the_page_of_the_space_says_the_answer_of_every_task(app, predictor, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo_of(predictor).read_bytes())
    remark, likeliest, seen, choice = app["look"]({"path": str(tmp_path / "photo.png")})
    one = predictor.predict(photo_of(predictor))[0]
    if predictor.task == "regression":
        assert likeliest is None
        for name, number in one.numbers.items():
            assert f"## {name} {number:.4g}\noff by " in remark.value
    else:
        assert likeliest == pytest.approx(one.probabilities, abs=1e-5)
        assert f"## {one.text}" in remark.value
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
    assert list(model["thresholds"].values()) == several.config["thresholds"]
    assert model["summary"].startswith("F1 ")
    assert "95 % interval" in model["summary"]
    model = json.loads((folders["regression"] / "model.json").read_text())
    assert [low for low, _ in model["range"].values()] == numbers.config["range"]["low"]
    assert model["off_by"].keys() == {"side", "left"}
    assert model["summary"].startswith("Off by ")
    for task, tag in (("multilabel", "image-classification"), ("regression", "image-regression")):
        readme = (folders[task] / "README.md").read_text(encoding="utf-8")
        assert f'tags: ["{tag}"]' in readme
        assert "python smoke.py" in readme
        assert "kit predict BUNDLE" not in readme
