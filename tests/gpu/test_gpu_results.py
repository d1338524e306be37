"""Results of a GPU: bundles, features and predictions equal to the CPU's, checkpoints that change machines, errors."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.vision.all import Callback

import kit
from kit import bundle, data, evaluate, model, train
from kit.errors import RecipeError
from kit.features import compute_features
from kit.model.build import feature_body
from kit.train.checkpoint import checkpoints, read_checkpoint

pytest_plugins = ["gpu_fixtures"]
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("own")]

FEATURES_TOLERANCE = 1e-4  # relative to their norm; fp32 gives 1e-6, TF32 would give 3e-4
PROBABILITY_TOLERANCE = 1e-3
PROOF_TOLERANCE = 1e-4


def probabilities(folder, images, *where: str) -> np.ndarray:
    predictor = bundle.load(folder, *where)
    return predictor.outputs(np.stack([predictor.prepare(path) for path in images]))


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet18", {"weights": "bundled", "layers": "auto"}),
        ("resnet18", {"weights": "bundled", "layers": "whole"}),
        ("resnet34", {"layers": "whole"}),
        ("tf_efficientnet_lite0", {"layers": "head"}),
    ],
    ids=["resnet18", "resnet18-whole", "resnet34-whole", "lite0-head"],
)
def test_a_bundle_made_on_it_predicts_the_same_on_a_cpu(
    many, device, size, resnet34, tmp_path, arch, options, record_property
):
    options = {"weights": str(resnet34)} | options if arch == "resnet34" else options
    run = kit.fine_tune(many, arch=arch, device=device, size=size, workers=2, out=tmp_path / "run", **options)
    chosen, config = json.loads((run.folder / "recipe.json").read_text())["chosen"], run.bundle / "config.json"
    assert torch.device(chosen["device"]).type == device
    proofs = {name: json.loads(config.read_text())[name]["largest_difference"] for name in ("proof", "onnx")}
    record_property("largest difference of torch and ONNX on the CPU", list(proofs.values()))
    assert max(proofs.values()) <= PROOF_TOLERANCE
    images = run.evaluation.predictions["path"].tolist()
    there = probabilities(run.bundle, images, device, "torch")
    for engine in ("torch", "onnx"):
        assert np.abs(probabilities(run.bundle, images, "cpu", engine) - there).max() <= PROOF_TOLERANCE
    assert run.seconds > 0
    record_property("seconds", round(run.seconds, 2))


def test_features_are_those_of_the_cpu_without_tf32(many, device, size, record_property):
    rows = data.table(many)
    body, rules = feature_body(kit.Recipe(arch="resnet18", weights="bundled", size=size))
    paths, hashes = rows["path"].tolist()[:32], rows["sha256"].tolist()[:32]
    there = compute_features(body, paths, hashes, rules, torch.device(device), create=False)
    here = compute_features(body, paths, hashes, rules, torch.device("cpu"), create=False)
    difference = float(np.linalg.norm(there - here) / np.linalg.norm(here))
    record_property("relative difference of features", difference)
    assert difference < FEATURES_TOLERANCE


def test_a_head_from_features_of_it_is_that_of_the_cpu(many, device, size, tmp_path, monkeypatch, record_property):
    found = []
    for place in (device, "cpu"):
        monkeypatch.setenv("KIT_CACHE", str(tmp_path / f"cache-{len(found)}"))
        recipe = kit.Recipe(arch="resnet18", weights="bundled", size=size, device=place, layers="head")
        train.seed_everything(recipe.seed)
        learn = model.learner(data.blocks(recipe).dataloaders(data.table(many)), recipe)
        history = train.fine_tune(learn, recipe)
        found.append((evaluate.evaluate(learn).probabilities, history.chosen["strength"]))
    difference = float(np.abs(found[0][0] - found[1][0]).max())
    record_property("largest difference of a probability", difference)
    assert found[0][1] == found[1][1]
    assert difference < PROBABILITY_TOLERANCE


def test_a_learner_that_was_not_trained_can_be_evaluated(small, many):
    recipe = replace(small, layers="head")
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(many)), recipe)
    assert evaluate.evaluate(learn).n > 0


# Checkpoints ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a training after a checkpoint, as a kill would."""


class Kill(Callback):
    """Raises after the first epoch, when its checkpoint was written."""

    order = 2000

    def after_epoch(self):
        raise Killed


START = """
import sys, kit
from kit import Recipe
from fastai.vision.all import Callback
class Kill(Callback):
    order = 2000
    def after_epoch(self): raise KeyboardInterrupt
images, weights, folder = sys.argv[1:]
recipe = Recipe(arch="test_resnet", weights=weights, size=64, batch=8, workers=0, layers="whole", epochs=2)
try:
    kit.fine_tune(images, recipe, out=folder, onnx=False, cbs=[Kill()])
except KeyboardInterrupt:
    pass
"""
RESUME = "import sys, kit; print(kit.resume(sys.argv[1], cbs=[]).folder)"


def killed(images, recipe, folder):
    with pytest.raises(Killed):
        kit.fine_tune(images, recipe, out=folder, onnx=False, cbs=[Kill()])
    return read_checkpoint(checkpoints(folder / "checkpoint")[-1])


def finished(folder) -> dict:
    """What a finished run chose, with the number of its epochs."""
    chosen = json.loads((folder / "recipe.json").read_text())["chosen"]
    return chosen | {"epochs": len((folder / "history.csv").read_text().splitlines()) - 1}


def said(process: subprocess.Popen, seconds: float = 240) -> str:
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return output


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_not_been_stopped(small, many, tmp_path):
    recipe = replace(small, epochs=2)
    whole = kit.fine_tune(many, recipe, out=tmp_path / "whole", onnx=False)
    killed(many, recipe, tmp_path / "run")
    again = kit.resume(tmp_path / "run", cbs=[])
    ours, theirs = (one.learner.model.state_dict() for one in (again, whole))
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert again.history.steps == whole.history.steps


def test_a_run_of_it_goes_on_on_a_machine_without_it(small, many, device, tmp_path, another_process):
    state = killed(many, replace(small, device="auto" if device == "cuda" else "cpu", epochs=2), tmp_path / "run")
    assert (state["random"]["batch"]["gpu"] is not None) == (device == "cuda")
    said(another_process(RESUME, tmp_path / "run", visible=False))
    assert (finished(tmp_path / "run")["device"], finished(tmp_path / "run")["epochs"]) == ("cpu", 3)
    assert bundle.load(tmp_path / "run").predict(sorted(many.rglob("*.png"))[:2]).table()["error"].isna().all()


def test_a_run_of_a_cpu_goes_on_on_it(small, many, device, tmp_path, another_process):
    said(another_process(START, many, small.weights, tmp_path / "run", visible=False))
    run = kit.resume(tmp_path / "run", cbs=[])
    assert finished(run.folder)["epochs"] == 3
    assert run.learner.dls.device.type == device
    assert {one.device.type for one in run.learner.model.parameters()} == {device}


# The device -----------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_here_is_a_clear_error(small, many, device, tmp_path):
    name = f"cuda:{torch.cuda.device_count()}"
    here = "cpu, cuda, cuda:0" if device == "cuda" else "cpu"
    refused = pytest.raises(RecipeError, match=f"device '{name}' is not here; this machine has: {here}")
    with refused:
        kit.fine_tune(many, replace(small, device=name), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = kit.fine_tune(many, small, out=tmp_path / "run", onnx=False)
    with refused:
        bundle.load(run.bundle, name)
    from kit.clean.session import features_of_table

    with refused:
        features_of_table(data.table(many), replace(small, device=name))


def test_two_processes_share_it_and_get_the_same(small, many, tmp_path, another_process):
    code = START.replace("cbs=[Kill()]", "cbs=[]")
    both = [another_process(code, many, small.weights, tmp_path / name) for name in "ab"]
    for process in both:
        said(process)
    a, b = (json.loads((tmp_path / name / "bundle" / "config.json").read_text())["files"] for name in "ab")
    assert a["model.safetensors"] == b["model.safetensors"]


def test_two_processes_of_torchrun_train_one_network_on_it(small, many, device, tmp_path, another_process):
    """On one GPU the processes exchange gradients by Gloo, because NCCL refuses to share it."""
    code = "import runpy, sys; sys.argv[0] = 'torchrun'; runpy.run_module('torch.distributed.run', run_name='__main__')"
    options = {"arch": "test_resnet", "weights": small.weights, "size": 64, "batch": 8, "workers": 0, "layers": "whole"}
    told = [word for name, value in (options | {"device": device}).items() for word in (f"--{name}", str(value))]
    start = ["--standalone", "--nproc_per_node", "2", "-m", "kit", "fine-tune"]
    said(another_process(code, *start, many, *told, "--out", tmp_path / "run"))
    assert finished(tmp_path / "run")["epochs"] == 2
    assert torch.device(finished(tmp_path / "run")["device"]).type == device


def test_doctor_names_card_driver_cuda_cudnn_memory_and_precision(device):
    command = [sys.executable, "-m", "kit.cli.main", "doctor"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=kit.__path__[0] + "/..", timeout=200).stdout
    lines = {line[7:].split("  ")[0].strip(): line for line in said.splitlines()}
    assert "precision" in lines, said
    if device == "cpu":
        assert "GPU" in lines
        return
    properties, version = torch.cuda.get_device_properties(0), torch.backends.cudnn.version()
    assert properties.name in lines["GPU"]
    assert f"CUDA {torch.version.cuda}" in lines["GPU"]
    assert "GB free: a convolution ran on it" in lines["GPU"]
    assert "NVIDIA " in lines["driver"]
    assert f"{version // 10_000}.{version % 10_000 // 100}." in lines["cuDNN"]
    assert "on cuda" in lines["precision"]
    assert lines["precision"].startswith("fine")
