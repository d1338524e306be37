"""Where weights come from, against a real server on this machine, real files and real bundles."""

import hashlib
import http.server
import json
import shutil
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file

from kit.errors import ArchitectureError, BundleError, WeightsError
from kit.files import packaged
from kit.model.architectures import IMAGENET_MEAN, build_network, cut_body, find_architecture
from kit.model.weightfile import read_tensors
from kit.model.weights import load_weights


def load(name: str, weights) -> tuple:
    architecture = find_architecture(name)
    network = build_network(architecture)
    body = cut_body(network, architecture, 64)
    return network, load_weights(network, body.module, architecture, str(weights))


@pytest.fixture(autouse=True)
def no_switches(monkeypatch):
    """What the person who runs the tests has set is not theirs."""
    for name in ("KIT_OFFLINE", "HF_HUB_OFFLINE", "KIT_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def trained():
    torch.manual_seed(3)
    return torchvision.models.resnet18()


def test_none_means_random_numbers_and_says_so():
    _, start = load("resnet18", "none")
    assert (start.kind, start.pretrained, start.mean) == ("none", False, IMAGENET_MEAN)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_fills_the_network_and_its_hash_is_kept(trained, tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    save_file(trained.state_dict(), path) if suffix == "safetensors" else torch.save(trained.state_dict(), path)
    network, start = load("resnet18", path)
    assert torch.equal(network.layer4[1].conv2.weight, trained.layer4[1].conv2.weight)
    assert torch.equal(network.bn1.running_var, trained.bn1.running_var)
    assert start.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert start.kind == "file"


def test_a_file_may_say_its_own_normalisation(trained, tmp_path):
    save_file(
        trained.state_dict(), tmp_path / "w.safetensors", metadata={"mean": "[0.1, 0.2, 0.3]", "std": "[1, 1, 1]"}
    )
    assert load("resnet18", tmp_path / "w.safetensors")[1].mean == (0.1, 0.2, 0.3)


def test_weights_of_another_network_are_refused(trained, tmp_path):
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="is of another network: it lacks"):
        load("resnet34", tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="is of another network: it lacks|in another shape"):
        load("wide_resnet50_2", tmp_path / "w.safetensors")


def test_a_pickle_that_runs_code_is_refused_unread(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Attack()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load("resnet18", tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_not_finite_are_refused(trained, tmp_path):
    trained.conv1.weight.data[0, 0, 0, 0] = float("nan")
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"holds values that are not finite \(conv1.weight\)"):
        load("resnet18", tmp_path / "w.safetensors")


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(WeightsError, match="weights 'nowhere.pth': neither a file nor a bundle's folder"):
        load("resnet18", "nowhere.pth")


def test_the_bundled_weights_fill_resnet18_with_their_own_normalisation():
    network, start = load("resnet18", "bundled")
    assert start.kind == "bundled"
    assert start.mean != IMAGENET_MEAN
    assert network.conv1.weight.dtype == torch.float32
    assert network.bn1.num_batches_tracked > 1000
    assert sum(file.stat().st_size for file in packaged("weights").iterdir()) <= 25_000_000


def test_an_installation_without_its_bundled_weights_is_told_to_be_mended(tmp_path, monkeypatch):
    monkeypatch.setattr("kit.model.weights.packaged", lambda name: tmp_path / name)
    with pytest.raises(WeightsError, match="the bundled weights .*resnet18-cifar10.safetensors are missing") as caught:
        load("resnet18", "bundled")
    assert caught.value.fix == "reinstall kit"


def test_weights_that_nobody_published_are_not_looked_for():
    with pytest.raises(WeightsError, match="the pretrained weights of timm/lcnet_035 are not published"):
        load("lcnet_035", "imagenet")


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 1}, torch.zeros(2)], ids=["list", "number", "tensor"])
def test_a_file_of_other_things_than_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="w.pth holds no state dict"):
        load("resnet18", tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_git_left_in_place_of_a_large_file_is_called_by_its_name(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(WeightsError, match="is a Git LFS pointer: it names the weights but does not hold them"):
        load("resnet18", path)


def test_an_archive_that_would_unpack_to_more_than_itself_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(1_000_000))
    with pytest.raises(
        WeightsError, match=r"its [\d,]+ bytes would unpack to 1,000,000; torch.save compresses nothing"
    ):
        load("resnet18", tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/readme.txt", "no weights")
    with pytest.raises(WeightsError, match="it holds 0 files data.pkl; one of at most 50 MB was expected"):
        load("resnet18", tmp_path / "w.pth")


@pytest.mark.parametrize("header", [b"{]", b"[1]", b'{"a": 1}', b'{"a": {}}'])
def test_a_header_that_is_not_in_order_is_told(tmp_path, header):
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="cannot be read as weights: its header is not in order: "):
        load("resnet18", tmp_path / "w.safetensors")


def test_no_other_network_has_bundled_weights():
    with pytest.raises(WeightsError, match="no weights are bundled for resnet34; they are for: resnet18"):
        load("resnet34", "bundled")


def test_a_bundle_gives_its_body(run):
    network, start = load("test_resnet", run.folder)
    assert torch.equal(next(network.parameters()), next(run.learner.model.parameters()))
    assert start.kind == "bundle"
    with pytest.raises(ArchitectureError, match="holds timm/test_resnet, not resnet34"):
        load("resnet34", run.bundle)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is no bundle: it holds no config.json"):
        load("resnet18", tmp_path)


@pytest.fixture
def server(trained, tmp_path, monkeypatch):
    """A server for torchvision's weights of resnet18: `content` is what it sends, None means 404."""
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    state = SimpleNamespace(content=(tmp_path / "w.pth").read_bytes(), requests=0)
    digest = hashlib.sha256(state.content).hexdigest()[:8]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests += 1
            self.send_response(404 if state.content is None else 200)
            self.send_header("Content-Length", str(len(state.content or b"")))
            self.end_headers()
            self.wfile.write(state.content or b"")

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{running.server_port}/resnet18-{digest}.pth"
    figures = SimpleNamespace(mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=url, transforms=lambda: figures))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    state.name = url.rsplit("/", 1)[-1]
    yield state
    running.shutdown()


def test_imagenet_weights_are_fetched_checked_and_kept(server, trained):
    network, start = load("resnet18", "imagenet")
    assert torch.equal(network.conv1.weight, trained.conv1.weight)
    assert (start.kind, start.mean, start.note) == ("imagenet", (0.5, 0.5, 0.5), None)
    load("resnet18", "imagenet")
    assert server.requests == 1


@pytest.mark.parametrize("content", [None, b"something else"])
def test_without_imagenet_weights_resnet18_falls_back_to_bundled_and_says_so(server, content, capsys):
    server.content = content
    _, start = load("resnet18", "imagenet")
    assert (start.asked, start.kind) == ("imagenet", "bundled")
    assert "ImageNet weights are not available" in start.note
    assert "ImageNet weights are not available" in capsys.readouterr().err


def test_without_imagenet_weights_any_other_network_stops_and_says_what_to_put_where(server, tmp_path):
    server.content = None
    with pytest.raises(WeightsError, match="no ImageNet weights for resnet50") as caught:
        load("resnet50", "imagenet")
    assert "404" in caught.value.problem
    assert str(tmp_path / "hub" / "checkpoints") in caught.value.fix
    assert "--weights none" in caught.value.fix


def test_timm_weights_that_cannot_be_had_stop_at_once(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="127.0.0.1 did not give it") as caught:
        load("convnext_atto", "imagenet")
    assert "timm/convnext_atto" in caught.value.fix


def test_offline_nothing_is_asked_and_the_message_says_which_file_to_put_where(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_OFFLINE", "1")
    with pytest.raises(WeightsError, match="is missing .*KIT_OFFLINE=1 forbids to fetch it") as caught:
        load("resnet50", "imagenet")
    assert f"put it at {tmp_path / 'hub' / 'checkpoints' / 'resnet18-'}" in caught.value.fix
    assert "FOLDER/resnet18-" in caught.value.fix
    assert "set KIT_WEIGHTS=FOLDER" in caught.value.fix
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load("resnet50", "imagenet")
    assert f"or put it at {tmp_path}/resnet18-" in caught.value.fix
    assert load("resnet18", "imagenet")[1].kind == "bundled"
    assert server.requests == 0


def test_a_folder_of_ones_own_comes_before_the_cache_and_its_files_are_checked(server, trained, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / server.name
    own.write_bytes(server.content)
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path / "own"))
    network, start = load("resnet18", "imagenet")
    assert torch.equal(network.conv1.weight, trained.conv1.weight)
    assert (start.kind, start.mean, server.requests) == ("imagenet", (0.5, 0.5, 0.5), 0)
    own.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=f"{own} is not the ImageNet weights of resnet50: sha256 .* expected"):
        load("resnet50", "imagenet")


def test_a_name_that_is_no_path_is_looked_for_in_the_folder_of_ones_own(trained, tmp_path, monkeypatch):
    save_file(trained.state_dict(), tmp_path / "mine.safetensors")
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    network, start = load("resnet18", "mine.safetensors")
    assert torch.equal(network.conv1.weight, trained.conv1.weight)
    assert start.origin == "file: mine.safetensors"


def test_a_folder_of_ones_own_that_is_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="KIT_WEIGHTS=.*nowhere is no folder"):
        load("resnet18", "imagenet")


def test_what_is_counted_or_computed_may_be_missing_as_in_older_files(trained, tmp_path):
    state = {name: value for name, value in trained.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    network, _ = load("resnet18", tmp_path / "old.pth")
    assert torch.equal(network.layer2[0].bn1.running_mean, trained.layer2[0].bn1.running_mean)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_checkpoint_that_holds_more_than_weights_gives_its_weights(trained, tmp_path, key):
    torch.save({"epoch": 3, "best": 0.5, key: trained.state_dict()}, tmp_path / "checkpoint.pth.tar")
    network, _ = load("resnet18", tmp_path / "checkpoint.pth.tar")
    assert torch.equal(network.conv1.weight, trained.conv1.weight)


def test_a_state_dict_of_half_precision_and_tied_tensors_is_read(tmp_path):
    shared = torch.randn(10, dtype=torch.bfloat16)
    torch.save({"a": shared, "b": shared, "c": torch.nn.Parameter(torch.zeros(3))}, tmp_path / "tied.pth")
    tensors, _ = read_tensors(tmp_path / "tied.pth")
    assert torch.equal(tensors["a"], tensors["b"])


def test_a_normalisation_that_is_not_three_numbers_is_refused(trained, tmp_path):
    for text in ("[0.1, 0.2]", "mean", "[[1], 2, 3]", "5"):
        save_file(trained.state_dict(), tmp_path / "w.safetensors", metadata={"mean": text})
        with pytest.raises(WeightsError, match="its mean is not three numbers"):
            load("resnet18", tmp_path / "w.safetensors")


def test_bundled_weights_that_were_damaged_are_refused_by_the_list_beside_them(tmp_path, monkeypatch):
    copy = Path(shutil.copytree(packaged("weights"), tmp_path / "weights"))
    monkeypatch.setattr("kit.model.weights.packaged", lambda name: copy)
    content = bytearray((copy / "resnet18-cifar10.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "resnet18-cifar10.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="resnet18-cifar10.safetensors is damaged: SHA-256"):
        load("resnet18", "bundled")


def test_the_metadata_of_the_bundled_weights_tell_where_they_come_from():
    from safetensors import safe_open

    with safe_open(packaged("weights") / "resnet18-cifar10.safetensors", "pt") as file:
        facts = file.metadata()
    assert "CIFAR-10" in facts["trained_on"]
    assert len(json.loads(facts["classes"])) == 10
    assert float(facts["test_accuracy"]) > 0.8
