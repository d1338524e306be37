"""Every task behind the same protocol: outputs become answers, which tables, programs and people are told alike."""

import re

import numpy as np
import pytest

from kit.recipe import Recipe
from kit.tasks import Prediction, Task, of
from kit.tasks.text import TASKS
from kit.tasks.training import training_of
from kit.views.view import view_of

OUTPUTS = {"a": 0.25, "b": 0.75}
CONFIG = {
    "vocab": ["a", "b"],
    "thresholds": [0.2, 0.9],
    "range": {"low": [0.0, 0.0], "high": [1.0, 2.0], "bounded": True},
    "temperature": 1.0,
    "metrics": {"n": 10},
}
COLUMNS = {
    "classification": ["prediction", "probability", "p_a", "p_b"],
    "multilabel": ["prediction", "p_a", "p_b"],
    "regression": ["predicted_a", "predicted_b"],
}
CELLS = {
    "classification": ["b", "0.750000", "0.250000", "0.750000"],
    "multilabel": ["a", "0.250000", "0.750000"],
    "regression": ["0.25", "0.75"],
}


@pytest.fixture(params=TASKS)
def task(request) -> Task:
    return of(request.param)


def predicted(task: Task, **fields) -> Prediction:
    return Prediction("a.jpg", plain=OUTPUTS, **task.answer(OUTPUTS, CONFIG), **fields)


def test_a_recipe_knows_the_same_tasks(task):
    assert of(Recipe(task=task.name, targets="a" if task.nouns == "numbers" else None).task) is task


def test_a_line_of_a_csv_file_has_a_text_for_each_column(task):
    good, bad = predicted(task, unlike=False), Prediction("b.jpg", error="there is no such file")
    assert task.columns(["a", "b"]) == ["path", *COLUMNS[task.name], "unlike", "error"]
    assert task.csv_line(good, ["a", "b"]) == ["a.jpg", *CELLS[task.name], "false", ""]
    assert task.csv_line(bad, ["a", "b"]) == ["b.jpg", *("" for _ in CELLS[task.name]), "", "there is no such file"]


def test_programs_are_told_the_same_keys_of_a_good_and_of_a_bad_image(task):
    good, bad = task.json(predicted(task)), task.json(Prediction("b.jpg", error="bad"))
    assert good.keys() == bad.keys()
    assert (good["error"], bad["error"]) == (None, "bad")
    assert not any(bad[name] for name in task.json_fields)
    assert list(good.get("probabilities", "ba")) == ["b", "a"], "the likeliest first"


def test_what_is_shown_of_a_prediction_has_each_class_or_number_once(task):
    one = predicted(task)
    assert sorted(name for group in task.groups(one, CONFIG).values() for name in group) == ["a", "b"]
    assert dict(task.parts(one, 2)).keys() <= {"a", "b"}
    assert one.text


def test_a_bundle_without_figures_can_be_described(task):
    assert task.breakdown(CONFIG) == {}
    assert task.scales(CONFIG) == []
    assert task.reliability(CONFIG)
    assert task.breakdown_key in task.described(CONFIG)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"temperature": 1.5, "calibration": {"n": 100}}, ""),
        ({"temperature": 1.0, "calibration": None}, ""),
        (
            {"temperature": 1.5, "calibration": {"n": 12}},
            "not reliable: there were only 12 images",
        ),
        (
            {"temperature": 9.9, "calibration": {"n": 200}},
            r"share of right predictions \(temperature 9.90",
        ),
        ({"temperature": 0.1, "calibration": {"n": 200}}, "rely on the class rather than on its probability"),
    ],
)
def test_probabilities_that_cannot_be_relied_on_are_said_to_be_so(config, said):
    doubts = of("classification").doubts(CONFIG | config)
    assert re.search(said, doubts) if said else doubts == ""
    assert doubts in of("classification").reliability(CONFIG | config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "not a measured frequency"),
        ({"calibration": {"error_after": "x"}, "temperature": 2.0}, "not a measured frequency"),
        (
            {"calibration": {"error_after": 0.03, "error_before": 0.08, "n": 74}, "temperature": 1.5},
            r"temperature 1.50.*error is 0.030 \(cross-fitted, n=74\), without calibration 0.080",
        ),
    ],
)
def test_probabilities_are_said_to_be_calibrated_where_they_are(config, said):
    assert re.search(said, of("classification").reliability(CONFIG | config))


def test_thresholds_are_told_with_what_they_gain():
    fit = {"thresholds_fit": {"f1_after": 0.9, "f1_before": 0.8, "n": 74}}
    assert "F1 is 0.900 (cross-fitted, n=74), with 0.5 for all 0.800" in of("multilabel").reliability(CONFIG | fit)
    same = CONFIG | {"thresholds": [0.5, 0.5]}
    assert of("multilabel").reliability(same) == "A class is predicted from a probability of 0.5 on."


@pytest.mark.parametrize(
    ("name", "labels", "targets", "outputs", "mistakes"),
    [
        ("classification", ["b", "a"], [1, 0], [[0.1, 0.2], [0.3, 0.4]], 1),
        ("multilabel", ["a;b", ""], [[1, 1], [0, 0]], [[2, 3], [-1, 1]], 1),
        ("regression", ["1;2", "3;4"], [[1, 2], [3, 4]], [[1, 2], [3, 5]], None),
    ],
)
def test_labels_become_the_targets_of_a_head_whose_mistakes_are_counted(name, labels, targets, outputs, mistakes):
    training = training_of(name)
    found = training.targets(labels, ["a", "b"])
    assert found.tolist() == targets
    assert training.mistakes(np.array(outputs), found) == mistakes
    assert training.ends(labels, None) == (([0.8, 1.8], [3.2, 4.2]) if name == "regression" else None)
    assert training.names(()) == (["value"] if name == "regression" else [])


RATE, SEVERAL = {"n": 74, "low": 0.0, "high": 0.0493}, {"per_target": {"a": {"mae": 2.13}, "b": {"mae": 30.0}}}


@pytest.mark.parametrize(
    "name, vocab, metrics, claim",
    [
        ("classification", ["cat", "dog"], RATE | {"error_rate": 0.071}, "Tells cat from dog; wrong on about 1 in 14"),
        (
            "classification",
            ["cat", "dog"],
            RATE | {"error_rate": 1.0},
            "Tells cat from dog; wrong on each of 74 photos.",
        ),
        (
            "classification",
            [f"breed {number}" for number in range(37)],
            RATE | {"error_rate": 0.0},
            "Tells 37 kinds apart: breed 0, breed 1, breed 2 and 34 more; no mistake on 74 photos, so wrong on at most "
            "about 1 in 20 photos like those it learned.",
        ),
        ("classification", ["cat", "dog"], {"n": 74, "error_rate": "many"}, "Tells cat from dog."),
        (
            "multilabel",
            ["a", "b"],
            {"n": 40, "exact": 0.9},
            "Finds a and b in a photo; wrong about one class or more on",
        ),
        (
            "multilabel",
            ["a", "b"],
            {"n": 40, "exact": 1.0},
            "no mistake on 40 photos, so wrong on at most about 1 in 11",
        ),
        ("multilabel", ["a", "b"], {"n": 40, "exact": 0.0}, "wrong about one class or more on each of 40 photos."),
        (
            "regression",
            ["a", "b"],
            SEVERAL,
            "Estimates a and b from a photo; off by 2.13 (a) and 30 (b) on average, on",
        ),
        ("regression", ["a"], {"r2": -0.1}, "Estimates a from a photo; no better than always answering the mean."),
    ],
)
def test_what_it_does_and_how_often_it_is_wrong_is_a_sentence_made_from_the_result(name, vocab, metrics, claim):
    config = CONFIG | {"task": name, "vocab": vocab, "metrics": {"n": 10} | metrics}
    assert claim in view_of(config).claim


def test_an_answer_is_less_sure_the_closer_another_one_is():
    sure, unsure = ({"a": 0.95, "b": 0.05}, {"a": 0.55, "b": 0.45})
    for task in (of("classification"), of("multilabel")):
        config = CONFIG | {"thresholds": [0.5, 0.5]}
        first, second = (Prediction("a", **task.answer(outputs, config)) for outputs in (unsure, sure))
        assert task.doubt(first, config) > task.doubt(second, config)
