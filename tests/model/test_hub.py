"""Weights by their ID on the hub, against a hub on this machine: every layout, refusal and fallback, and no network."""

import hashlib
import json

import pytest
import timm
import torch
from local_hub import COMMIT, ask_only, local_hub
from safetensors.torch import save, save_file

from kit.errors import ArchitectureError, BundleError, FetchError, WeightsError
from kit.model.architectures import TORCHVISION, build_network, cut_body, find_architecture
from kit.model.weights import load_weights

FIGURES = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "input_size": [3, 288, 288]}
CONFIG = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {"tag": "a1_in1k"} | FIGURES}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(5)
    return timm.create_model("resnet18", pretrained=False)


@pytest.fixture(scope="module")
def content(trained):
    return save(trained.state_dict())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with local_hub() as running:
        ask_only(monkeypatch, running, tmp_path / "cache")
        yield running


def load(arch: str, weights: str) -> tuple:
    architecture = find_architecture(arch)
    network = build_network(architecture)
    body = cut_body(network, architecture, 64)
    return network, load_weights(network, body.module, architecture, weights)


def asked(hub) -> list[str]:
    """The files that were fetched; once a day the hub's client also asks for a list of its own."""
    return [path.rpartition("/")[2] for method, path in hub.requests if method == "GET" and "/resolve/" in path]


@pytest.mark.parametrize("arch", ["timm/resnet18", "resnet18", "resnet18.a2_in1k"])
@pytest.mark.parametrize("prefix", ["hub:", "hf-hub:"])
def test_an_id_fills_the_network_of_that_name_with_the_normalisation_of_its_config(hub, trained, content, arch, prefix):
    hub.add("timm/resnet18.a1_in1k", CONFIG, model__safetensors=content)
    network, start = load(arch, f"{prefix}timm/resnet18.a1_in1k")
    assert torch.equal(network.layer4[1].conv2.weight, trained.layer4[1].conv2.weight)
    assert (start.kind, start.mean, start.std) == ("hub", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert start.sha256 == hashlib.sha256(content).hexdigest()
    assert start.origin == f"hub: timm/resnet18.a1_in1k@{COMMIT}, trained at 288 pixels a side"


def test_what_was_fetched_once_needs_no_network_again(hub, content, monkeypatch):
    hub.add("timm/resnet18.a1_in1k", CONFIG, model__safetensors=content)
    load("resnet18", "hub:timm/resnet18.a1_in1k")
    assert sorted(asked(hub)) == ["config.json", "model.safetensors"]
    hub.requests.clear()
    load("resnet18", "hub:timm/resnet18.a1_in1k")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    load("resnet18", f"hub:timm/resnet18.a1_in1k@{COMMIT}")
    assert hub.requests == []


def test_a_revision_is_asked_for_by_its_name(hub, content):
    hub.add("me/net", CONFIG, model__safetensors=content)
    load("resnet18", f"hub:me/net@{COMMIT}")
    assert all(f"/resolve/{COMMIT}/" in path for _, path in hub.requests)
    with pytest.raises(FetchError, match="me/net has no revision nowhere"):
        load("resnet18", "hub:me/net@nowhere")


@pytest.mark.parametrize("switch", ["KIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_the_message_says_which_file_to_put_where(hub, content, monkeypatch, switch):
    hub.add("timm/resnet18.a1_in1k", CONFIG, model__safetensors=content)
    monkeypatch.setenv(switch, "1")
    with pytest.raises(FetchError, match=f"config.json of .* is not on this machine, and {switch}=1 forbids") as caught:
        load("resnet18", "hub:timm/resnet18.a1_in1k")
    assert "put it at FOLDER/timm/resnet18.a1_in1k/config.json and set KIT_WEIGHTS=FOLDER" in caught.value.fix
    with pytest.raises(
        WeightsError, match=f"model.safetensors of timm/resnet18.a1_in1k .*{switch}=1 forbids"
    ) as caught:
        load("timm/resnet18", "imagenet")
    assert "FOLDER/timm/resnet18.a1_in1k/model.safetensors" in caught.value.fix
    assert hub.requests == []


def test_a_hub_that_does_not_answer_is_named_at_once(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="127.0.0.1 did not give it \\(ConnectionRefusedError\\)"):
        load("resnet18", "hub:timm/resnet18.a1_in1k")


def test_a_tag_in_the_name_of_a_network_chooses_those_weights(hub, trained, content):
    hub.add("timm/resnet18.a2_in1k", None, model__safetensors=content)
    network, start = load("resnet18.a2_in1k", "imagenet")
    assert torch.equal(network.conv1.weight, trained.conv1.weight)
    assert start.origin == "timm: timm/resnet18.a2_in1k"
    assert asked(hub) == ["model.safetensors"]
    with pytest.raises(ArchitectureError, match="timm has no weights 'a9_in1k' of resnet18. Did you mean"):
        find_architecture("resnet18.a9_in1k")
    with pytest.raises(ArchitectureError, match="'hub:timm/resnet18.a1_in1k' is not a network but weights of one"):
        find_architecture("hub:timm/resnet18.a1_in1k")


def test_a_damaged_copy_in_the_cache_is_refused_by_its_hash(hub, content, tmp_path):
    hub.add("timm/resnet18.a1_in1k", CONFIG, model__safetensors=content)
    load("resnet18", "hub:timm/resnet18.a1_in1k")
    (path,) = (tmp_path / "cache").rglob("model.safetensors")
    blob = path.resolve()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match="is damaged: SHA-256"):
        load("resnet18", "hub:timm/resnet18.a1_in1k")


def test_a_repository_that_has_only_a_pickle_is_refused_and_the_pickle_not_fetched(hub):
    hub.add("old/net", CONFIG, pytorch_model__bin=b"never read")
    with pytest.raises(WeightsError, match=f"old/net@{COMMIT} has no model.safetensors") as caught:
        load("resnet18", "hub:old/net")
    assert "a pickle (pytorch_model.bin) could run any program and is not fetched" in caught.value.fix
    assert "turn one that you trust into safetensors, then --weights PATH" in caught.value.fix
    assert "pytorch_model.bin" not in asked(hub)


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({"architecture": "resnet34"}, ArchitectureError, "holds resnet34, not resnet18"),
        ({"architecture": None, "architectures": ["ViTModel"]}, WeightsError, "no architecture of timm .*ViTModel"),
        ({"model_args": {"stem_width": 64}}, WeightsError, "its network was changed \\(model_args: stem_width\\)"),
        ({"pretrained_cfg": FIGURES | {"mean": [0.5]}}, WeightsError, "config.json is not three usable numbers"),
        ({"pretrained_cfg": FIGURES | {"std": [0, 1, 1]}}, WeightsError, "field pretrained_cfg.std"),
        ({"pretrained_cfg": FIGURES | {"mean": [0.5, float("nan"), 1]}}, WeightsError, "field pretrained_cfg.mean"),
        ({"pretrained_cfg": FIGURES | {"input_size": [1, 64, 64]}}, WeightsError, "takes images of 1 channels, not 3"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_name(hub, content, config, error, text):
    hub.add("me/net", CONFIG | config, model__safetensors=content)
    with pytest.raises(error, match=text):
        load("resnet18", "hub:me/net")


def test_the_flat_config_of_older_repositories_is_understood(hub, content):
    hub.add("me/net", {"architecture": "resnet18"} | FIGURES, model__safetensors=content)
    assert load("resnet18", "hub:me/net")[1].mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("raw", [b"[]", b"{", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(hub, content, raw):
    hub.add("me/net", None, config__json=raw, model__safetensors=content)
    with pytest.raises(WeightsError, match="config.json is not a JSON object"):
        load("resnet18", "hub:me/net")


def test_what_the_hub_refuses_is_said_as_it_is(hub, content):
    with pytest.raises(FetchError, match="127.0.0.1 has no repository nobody/nothing, or it is private"):
        load("resnet18", "hub:nobody/nothing")
    hub.add("shy/net", CONFIG, model__safetensors=content)
    hub.gated.add("shy/net")
    with pytest.raises(FetchError, match="shy/net is gated: it asks for your agreement") as caught:
        load("resnet18", "hub:shy/net")
    assert "hf auth login" in caught.value.fix
    hub.add("bare/net", None, readme__md=b"#")
    with pytest.raises(WeightsError, match="bare/net has no config.json"):
        load("resnet18", "hub:bare/net")


@pytest.mark.parametrize("text", ["hub:", "hub:../../etc", "hub:a/b/c", "hub:/etc/passwd", "hub:a/b@../c", "hub:a b"])
def test_what_cannot_be_an_id_is_refused_unasked(hub, text):
    with pytest.raises(WeightsError, match="names nothing on the hub"):
        load("resnet18", text)
    assert hub.requests == []


def test_a_bundle_of_kit_gives_its_body_after_its_hash_was_compared(hub, run):
    files = {path.name.replace(".", "__"): path.read_bytes() for path in run.bundle.iterdir() if path.is_file()}
    hub.add("me/shapes", None, **files)
    network, start = load("test_resnet", "hub:me/shapes")
    assert torch.equal(next(network.parameters()), next(run.learner.model.parameters()))
    assert (start.kind, start.origin) == ("bundle", f"hub: me/shapes@{COMMIT}")
    with pytest.raises(ArchitectureError, match="hub: me/shapes@.* holds timm/test_resnet, not resnet34"):
        load("resnet34", "hub:me/shapes")
    weights = bytearray(files["model__safetensors"])
    weights[-1] ^= 1
    hub.add("me/flipped", None, **files | {"model__safetensors": bytes(weights)})
    with pytest.raises(WeightsError, match="is damaged: SHA-256"):
        load("test_resnet", "hub:me/flipped")
    config = json.loads(files["config__json"]) | {"version": 99}
    hub.add("me/newer", config, model__safetensors=files["model__safetensors"])
    with pytest.raises(BundleError, match="version 99"):
        load("test_resnet", "hub:me/newer")


@pytest.mark.parametrize("folder", ["timm/resnet18.a1_in1k", "resnet18.a1_in1k"])
@pytest.mark.parametrize("weights", ["hub:timm/resnet18.a1_in1k", "imagenet"])
def test_a_folder_of_ones_own_comes_before_cache_and_network(hub, trained, monkeypatch, tmp_path, folder, weights):
    (tmp_path / "own" / folder).mkdir(parents=True)
    save_file(trained.state_dict(), tmp_path / "own" / folder / "model.safetensors")
    (tmp_path / "own" / folder / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path / "own"))
    network, _ = load("timm/resnet18", weights)
    assert torch.equal(network.conv1.weight, trained.conv1.weight)
    assert hub.requests == []


@pytest.mark.parametrize("weights", ["hub:timm/resnet18.a1_in1k", "imagenet"])
def test_a_single_file_by_timms_name_will_do(hub, trained, monkeypatch, tmp_path, weights):
    save_file(trained.state_dict(), tmp_path / "resnet18.a1_in1k.safetensors")
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    network, start = load("timm/resnet18", weights)
    assert torch.equal(network.conv1.weight, trained.conv1.weight)
    assert start.mean == pytest.approx((0.485, 0.456, 0.406))
    assert hub.requests == []


def test_a_single_file_that_nobody_knows_is_refused(hub, trained, monkeypatch, tmp_path):
    save_file(trained.state_dict(), tmp_path / "mystery.safetensors")
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="has no config.json beside it, and timm has no network mystery"):
        load("resnet18", "hub:me/mystery")


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_timms_network_of_a_torchvision_name_has_the_same_tensors(name):
    with torch.device("meta"):
        ours = build_network(TORCHVISION[name]).state_dict()
        theirs = timm.create_model(name, pretrained=False).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_and_it_computes_the_same(name):
    torch.manual_seed(1)
    theirs, ours = timm.create_model(name, pretrained=False).eval(), build_network(TORCHVISION[name]).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def old_layout(state: dict) -> dict:
    """A ConvNeXt's tensors by the names that its authors gave them, which timm's loader translates."""
    names = {"stem.": "downsample_layers.0.", ".blocks.": ".", "conv_dw": "dwconv", "mlp.fc": "pwconv"}
    found = {}
    for name, value in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if ".downsample." in name:
            _, stage, _, rest = name.split(".", 3)
            name = f"downsample_layers.{stage}.{rest}"
        found[name.replace("head.norm.", "norm.")] = value
    return found


def test_an_older_layout_is_read_as_timm_reads_it_but_never_in_part(hub):
    torch.manual_seed(2)
    network = timm.create_model("convnext_atto", pretrained=False, num_classes=0)
    for value in network.parameters():
        torch.nn.init.normal_(value)
    state = old_layout(network.state_dict())
    assert set(state) & set(network.state_dict()) == set()
    hub.add("timm/convnext_atto.d2_in1k", None, model__safetensors=save(state))
    loaded, _ = load("convnext_atto", "imagenet")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())


def test_an_older_layout_that_lacks_a_tensor_is_refused(hub):
    state = old_layout(timm.create_model("convnext_atto", pretrained=False, num_classes=0).state_dict())
    del state["downsample_layers.1.1.weight"]
    hub.add("timm/convnext_atto.d2_in1k", None, model__safetensors=save(state))
    with pytest.raises(WeightsError, match="is of another network: it lacks"):
        load("convnext_atto", "imagenet")
