"""model.onnx answers as the learner did, proven on real images, and needs no torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from kit import bundle
from kit.bundle.engines import onnx_engine
from kit.bundle.inference_model import InferenceModel
from kit.bundle.onnx import export, prove, write_onnx
from kit.bundle.read import load_network
from kit.errors import BundleError, ImageError
from kit.manifest import read_config
from kit.model.heads import Range, empty_network

HEAVY = ("torch", "fastai", "pandas", "gradio", "onnx", "onnxscript", "torchvision", "timm")


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run.bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def paths(shapes):
    return sorted(shapes.rglob("*.png"))


def values(predictions):
    return np.array([list(one.plain.values()) for one in predictions])


def test_fine_tuning_writes_it_with_its_proof(run):
    config = read_config(run.bundle)
    assert "model.onnx" in config["files"]
    assert config["onnx"]["images"] == 6
    assert 0 <= config["onnx"]["largest_difference"] <= 1e-4


def test_both_engines_give_the_same_answers_for_any_number_of_images(run, paths):
    by_onnx, by_torch = (bundle.load(run.bundle, engine=engine) for engine in ("onnx", "torch"))
    for count in (1, 2, 7):
        pixels = np.stack([by_onnx.prepare(path) for path in paths[:count]])
        ours, theirs = by_onnx.engine(pixels), by_torch.engine(pixels)
        for name in ("outputs", "features", "maps"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4)
    np.testing.assert_allclose(values(by_onnx.predict(paths)), values(by_torch.predict(paths)), atol=1e-5)


@pytest.mark.parametrize(
    ("task", "arch", "size"),
    [
        ("classification", "timm/test_resnet", 32),
        ("classification", "timm/test_vit", 160),
        ("multilabel", "timm/test_resnet", 32),
        ("regression", "timm/test_resnet", 32),
        ("regression without limits", "timm/test_resnet", 32),
    ],
)
def test_a_linear_head_is_written_as_it_computes(task, arch, size, tmp_path):
    name = task.split()[0]
    ends = Range([-5, 0], [5, 100], bounded=task == name) if name == "regression" else None
    network = empty_network(arch, 2, size, ends, "linear")
    rules = {"size": size, "resize": "crop", "at_least": size, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.2]}
    write_onnx(network, {"image": rules, "task": name, "vocab_sha256": ""}, tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"pixels": pixels})
    with torch.no_grad():
        expected = InferenceModel(network, rules, name)(torch.from_numpy(pixels))
    assert len(found) == (3 if "resnet" in arch else 2)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_it_predicts_what_the_learner_did(run):
    predictions = bundle.load(run.bundle, engine="onnx").predict(run.evaluation.predictions["path"].tolist())
    assert np.abs(values(predictions) - run.evaluation.probabilities).max() < 1e-5


def test_the_heat_maps_are_grad_cam_as_autograd_finds_it(run, paths):
    """The gradient of a class's logit with respect to the last feature maps, averaged, weighs the maps."""
    predictor, config = bundle.load(run.bundle, engine="torch"), read_config(run.bundle)
    network = load_network(run.bundle, config)
    inference = InferenceModel(network, config["image"])
    pixels = torch.from_numpy(np.stack([predictor.prepare(path) for path in paths[:4]]))
    x = inference.preprocess(pixels)
    activations = network[0](x).detach().requires_grad_()
    logits = network[1](activations)
    maps = predictor.engine(pixels.numpy()).maps
    for index in range(3):
        (gradient,) = torch.autograd.grad(logits[:, index].sum(), activations, retain_graph=True)
        expected = (gradient.mean((2, 3), keepdim=True) * activations).sum(1).relu()
        torch.testing.assert_close(torch.from_numpy(maps[:, index]), expected.detach(), rtol=1e-4, atol=1e-5)


def test_an_explanation_is_the_prediction_with_a_map_of_each_class(run, paths):
    predictor = bundle.load(run.bundle)
    prediction, maps = predictor.explain(paths[0])
    assert prediction.label == predictor.predict(paths[0])[0].label
    assert maps.shape[0] == 3
    assert (maps >= 0).all()
    with pytest.raises(ImageError, match="not an image"):
        predictor.explain(b"text")


def test_predicting_loads_neither_torch_nor_fastai_nor_pandas(run, paths):
    code = f"""
import sys
from kit import bundle
print(bundle.load({str(run.bundle)!r}).predict({str(paths[0])!r})[0].label)
print(*(set(sys.modules) & set({HEAVY!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    label, loaded = done.stdout.splitlines()
    assert label in ("circle", "square", "triangle")
    assert loaded == ""


def test_the_command_that_predicts_reads_no_more_than_it_needs(run, paths):
    code = f"""
import atexit, sys
from kit.cli.main import run
atexit.register(lambda: print(*(set(sys.modules) & set({(*HEAVY, "pydantic", "kit.cli.serve")!r}))))
sys.argv = ["kit", "predict", {str(run.bundle)!r}, {str(paths[0])!r}]
run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer, loaded = done.stdout.splitlines()
    assert str(paths[0]) in answer
    assert loaded == ""


def test_a_bundle_without_it_predicts_with_torch_and_says_so(copy, paths, capsys):
    drop_onnx(copy)
    assert bundle.load(copy).predict(paths[0])[0].label
    assert "note: this bundle holds no model.onnx; torch predicts (kit export writes it)" in capsys.readouterr().err
    with pytest.raises(BundleError, match="this bundle holds no model.onnx.*\n.*kit export"):
        bundle.load(copy, engine="onnx")


def drop_onnx(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["files"]["model.onnx"], config["onnx"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "config.json.sha256").unlink(missing_ok=True)
    (folder / "model.onnx").unlink()


def test_export_adds_it_to_a_bundle_that_has_none(copy, paths):
    drop_onnx(copy)
    proof = export(copy, paths[:5])
    assert proof["images"] == 5
    assert read_config(copy)["onnx"] == proof
    assert bundle.load(copy, engine="onnx").predict(paths[0])[0].label


def test_a_file_that_answers_differently_is_refused_by_how_much_and_the_bundle_stays(run, copy, paths, monkeypatch):
    monkeypatch.setattr("kit.bundle.onnx.write_onnx", lambda *given: shutil.copy(run.bundle / "model.onnx", given[-1]))
    drop_onnx(copy)
    before = (copy / "config.json").read_bytes()
    wrong = np.full((2, 3), 1 / 3)
    with pytest.raises(BundleError, match=r"as ONNX the network answers differently: a probability by 0\.\d+"):
        export(copy, paths[:2], wrong)
    assert (copy / "config.json").read_bytes() == before
    assert not (copy / "model.onnx").exists()


def test_numbers_that_differ_are_told_in_widths_of_their_range(tmp_path, monkeypatch):
    monkeypatch.setattr("kit.bundle.onnx.onnx_engine", lambda path, config: None)
    monkeypatch.setattr("kit.bundle.onnx.Predictor", lambda config, engine, folder: None)
    monkeypatch.setattr("kit.bundle.onnx.outputs", lambda predictor, images: np.array([[10.0, 3.0]]))
    config = {"task": "regression", "vocab": ["x", "y"], "range": {"low": [0, 0], "high": [100, 10]}}
    with pytest.raises(BundleError, match=r"differently: a number, in widths of its range, by 0\.25\n"):
        prove(tmp_path, config, tmp_path / "model.onnx", ["a.png"], np.array([[10.0, 0.5]]))


def test_what_the_exporter_cannot_do_is_said_in_one_line(copy, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no such operator\nand twenty more lines")

    config = read_config(copy)
    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(BundleError, match=r"this network cannot be written as ONNX \(no such operator\)\n"):
        write_onnx(load_network(copy, config), config, copy / "model.onnx")


def test_no_image_is_no_proof(copy):
    with pytest.raises(BundleError, match="there is no image to prove the ONNX file on"):
        export(copy, [])


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x0a" * 50], ids=["empty", "text", "half a model"])
def test_a_file_that_is_no_network_says_so_in_one_line(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx cannot be run by ONNX Runtime \(.+\)\n  Fix: "):
        onnx_engine(tmp_path / "model.onnx", {"vocab_sha256": "0"})


def test_a_changed_file_is_never_given_to_the_engine(copy, monkeypatch):
    """Hashing goes on beside the imports, but what is used was found sound before."""
    given = []
    monkeypatch.setattr("kit.bundle.engines.onnx_engine", lambda *values: given.append(values))
    with (copy / "model.onnx").open("r+b") as file:
        file.write(b"\xff")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that was saved"):
        bundle.load(copy, engine="onnx")
    assert given == []


def test_a_changed_file_that_the_engine_does_not_need_is_refused_too(copy, monkeypatch):
    given = []
    monkeypatch.setattr("kit.bundle.engines.onnx_engine", lambda *values: given.append(values))
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(BundleError, match=r"model\.safetensors is not the file that was saved"):
        bundle.load(copy, engine="onnx")
    assert len(given) == 1


@pytest.mark.parametrize(("engine", "device", "problem"), [
    ("tensorrt", "auto", "engine 'tensorrt'"),
    ("onnx", "cuda", "the ONNX engine computes on the CPU, not on cuda"),
])  # fmt: skip
def test_an_engine_that_cannot_be_is_refused(run, engine, device, problem):
    with pytest.raises(BundleError, match=problem):
        bundle.load(run.bundle, device, engine)


def test_the_weights_lie_inside_the_file(run):
    sizes = [(run.bundle / name).stat().st_size for name in ("model.onnx", "model.safetensors")]
    assert sizes[0] > 0.95 * sizes[1]
    assert not list(run.bundle.glob("*.data"))


@pytest.mark.shared
@pytest.mark.slow
def test_370_photos_of_pets_get_the_same_answers_from_both_engines(pets, run):
    """The probabilities of an untrained head would all be alike; the shapes' own network has opinions on pets."""
    paths = sorted(pets.glob("*.jpg"))
    ours, theirs = (values(bundle.load(run.bundle, engine=engine).predict(paths)) for engine in ("onnx", "torch"))
    assert len(paths) == 370
    assert np.abs(ours - theirs).max() < 1e-4
    assert (ours.argmax(1) == theirs.argmax(1)).all()


def test_an_image_is_given_as_pixels(run):
    predictor = bundle.load(run.bundle)
    pixels = predictor.prepare(Image.new("RGB", (50, 40), (255, 0, 0)))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (32, 32, 3)
    assert pixels[16, 16].tolist() == [255, 0, 0]
