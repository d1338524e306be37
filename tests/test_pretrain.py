"""The pretraining of the bundled weights, on a few drawn shapes: it resumes in every bit, and writes what loads."""

import csv
import importlib.util
from pathlib import Path

import pytest
import torch
from conftest import draw_shape

SCRIPT = Path(__file__).parent.parent / "data" / "pretrain.py"


@pytest.fixture
def pretrain(monkeypatch):
    spec = importlib.util.spec_from_file_location("pretrain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "pretrain", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "CYCLES", (module.Cycle(0.05, 1.0, ((1, 32),)), module.Cycle(0.01, 0.5, ((1, 32),))))
    return module


@pytest.fixture
def photos(tmp_path, pretrain):
    for side, count in (("train", 12), ("test", 125)):
        for shape in ("circle", "square"):
            folder = tmp_path / side / shape
            folder.mkdir(parents=True)
            for number in range(count):
                draw_shape(shape, number, size=32).save(folder / f"{number:03}.png")
    return pretrain.read_photos(tmp_path / "train"), pretrain.read_photos(tmp_path / "test")


def started(pretrain, photos, checkpoint):
    torch.manual_seed(1)
    return pretrain.Pretraining(*photos, checkpoint)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(pretrain, photos, tmp_path, monkeypatch):
    whole = started(pretrain, photos, tmp_path / "whole")
    whole.run()
    cycles = pretrain.CYCLES
    monkeypatch.setattr(pretrain, "CYCLES", cycles[:1])
    started(pretrain, photos, tmp_path / "stopped").run()
    monkeypatch.setattr(pretrain, "CYCLES", cycles)
    torch.manual_seed(99)
    resumed = pretrain.Pretraining(*photos, tmp_path / "stopped")
    resumed.resume()
    resumed.run()
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    state = whole.average.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.average.state_dict().items())


def test_what_it_writes_can_be_started_from_and_tells_its_normalisation(pretrain, photos, tmp_path):
    from kit.model.architectures import build_network, cut_body, find_architecture
    from kit.model.weights import load_weights

    run = started(pretrain, photos, tmp_path / "checkpoint")
    run.run()
    run.export(tmp_path / "out" / "weights.safetensors")
    architecture = find_architecture("resnet18")
    network = build_network(architecture)
    body = cut_body(network, architecture, 64).module
    start = load_weights(network, body, architecture, str(tmp_path / "out" / "weights.safetensors"))
    assert torch.equal(network.conv1.weight, run.average.conv1.weight.half().float())
    assert start.mean == pytest.approx(run.mean.flatten().tolist(), abs=1e-4)
    assert [row["epoch"] for row in csv.DictReader((tmp_path / "out" / "weights.csv").open())] == ["1", "2"]


def test_augmented_images_stay_between_black_and_white_at_the_wanted_size(pretrain, photos):
    images = photos[0].images.float().div(255)
    for strength in (0.0, 1.0):
        made = pretrain.random_light(pretrain.random_warp(images, 48, strength), strength)
        assert made.shape == (24, 3, 48, 48)
        assert 0 <= made.min() <= made.max() <= 1
