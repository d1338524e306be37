"""A bundle knows how sure it may be, and which images are not like those it was trained on."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import kit
from kit import bundle, evaluate
from kit.bundle.predictor import Predictor
from kit.manifest import read_config


@pytest.fixture(scope="module")
def paths(shapes):
    return sorted(shapes.rglob("*.png"))


def test_the_config_tells_both_with_their_figures(run):
    config = read_config(run.bundle)
    assert config["calibration"]["n"] == 6
    assert config["temperature"] == config["calibration"]["temperature"] == 1.0
    assert config["unknown"]["train"] == 18
    assert config["unknown"]["valid"] == 6
    assert "unknown.safetensors" in config["files"]


def test_a_temperature_changes_how_sure_it_is_and_never_what_it_says(run, paths):
    cold = bundle.load(run.bundle)
    warm = Predictor(cold.config | {"temperature": 2.0}, cold.engine, cold.folder, cold.unknown)
    for before, after in zip(cold.predict(paths), warm.predict(paths), strict=True):
        assert after.label == before.label
        assert after.plain == pytest.approx(before.probabilities)
        assert after.probability < before.probability
        assert sum(after.probabilities.values()) == pytest.approx(1)


def test_without_a_temperature_the_probabilities_are_the_networks_own(run, paths):
    for one in bundle.load(run.bundle).predict(paths[:3]):
        assert one.plain == one.probabilities


def test_images_are_flagged_by_the_features_that_the_network_gives(run, paths):
    predictor = bundle.load(run.bundle)
    pixels = np.stack([predictor.prepare(path) for path in paths])
    flags = predictor.unknown.flags(predictor.engine(pixels).features)
    assert [one.unlike for one in predictor.predict(paths)] == flags.tolist()
    nothing = predictor.unknown.flags(np.full((1, predictor.engine(pixels).features.shape[1]), np.nan))
    assert nothing.tolist() == [True]


def test_the_features_kept_while_evaluating_are_those_that_the_bundle_computes(run):
    predictor, evaluation = bundle.load(run.bundle), run.evaluation
    paths = evaluation.predictions["path"].tolist()
    assert set(evaluation.features) == set(paths)
    pixels = np.stack([predictor.prepare(path) for path in paths])
    kept = np.stack([evaluation.features[path] for path in paths])
    np.testing.assert_allclose(kept, predictor.engine(pixels).features, atol=1e-5)


def test_of_many_images_a_few_are_kept_evenly_taken(run, monkeypatch):
    monkeypatch.setattr("kit.evaluate.evaluation.MOST_KEPT", 3)
    result = evaluate.evaluate(run.learner)
    paths = result.predictions["path"].tolist()
    assert list(result.features) == [paths[0], paths[2], paths[5]]
    np.testing.assert_allclose(result.features[paths[2]], run.evaluation.features[paths[2]], atol=1e-6)


def test_of_a_wrapped_network_none_are_kept_and_it_predicts_the_same(run, monkeypatch):
    monkeypatch.setattr(run.learner, "model", torch.nn.DataParallel(run.learner.model))
    wrapped = evaluate.evaluate(run.learner)
    assert wrapped.features == {}
    np.testing.assert_allclose(wrapped.probabilities, run.evaluation.probabilities, atol=1e-5)


def test_where_none_were_kept_the_bundle_computes_them(run, tmp_path):
    folder = bundle.save(run.learner, replace(run.evaluation, features={}), tmp_path / "bundle", onnx=False)
    ours, theirs = (bundle.load(one, engine="torch").unknown for one in (folder, run.bundle))
    np.testing.assert_allclose(ours.threshold, theirs.threshold, rtol=1e-4)


def test_too_few_images_to_know_are_said_to_be(tiny, shapes, tmp_path):
    for name in ("circle", "square"):
        shutil.copytree(shapes / name, tmp_path / "few" / name)
    few = kit.fine_tune(tmp_path / "few", tiny, out=tmp_path / "run", onnx=False)
    config = read_config(few.bundle)
    assert "validation images are too few to know what is unlike them; it takes 5" in config["unknown"]["reason"]
    assert "unknown.safetensors" not in config["files"]
    assert bundle.load(few.bundle).predict(few.table["path"].iloc[0])[0].unlike is None
