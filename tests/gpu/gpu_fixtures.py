"""Fixtures of the tests of a GPU. KIT_GPU_DEVICE=cpu runs on the CPU what can run there; the rest is then skipped.

pytest -m gpu                                    # on a machine with an NVIDIA GPU
KIT_GPU_DEVICE=cpu pytest -m gpu tests/gpu       # anywhere
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_shapes

ROOT = Path(__file__).parents[2]
DEVICE = os.environ.get("KIT_GPU_DEVICE", "cuda")
sys.path.insert(0, str(ROOT / "tests" / "mechanism"))  # the comparison with fastai, which runs here on the GPU


@pytest.fixture(scope="session")
def device() -> str:
    """The device that is tried: "cuda", or "cpu" where KIT_GPU_DEVICE says so."""
    import torch

    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch can use; KIT_GPU_DEVICE=cpu tries on the CPU what can run there")
    return DEVICE


@pytest.fixture
def cuda(device) -> str:
    """The GPU, for tests that a CPU cannot run."""
    if device == "cpu":
        pytest.skip("needs a GPU: a CPU has nothing like it")
    return device


@pytest.fixture
def own(tmp_path, monkeypatch, device):
    """No features or decoded images of another test, no network, and no memory of the GPU kept after the test, because
    several processes share it."""
    import gc

    import torch

    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KIT_OFFLINE", "1")
    yield
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def size(device) -> int:
    """Pixels a side: a real size on a GPU, a small one on a CPU."""
    return 224 if device == "cuda" else 64


@pytest.fixture(scope="session")
def many(tmp_path_factory) -> Path:
    """A folder of 90 drawn images of three classes. Read it; do not write to it."""
    return write_shapes(tmp_path_factory.mktemp("many"), count=30)


@pytest.fixture(scope="session")
def small(light, device):
    """`light` (half a million weights, both phases, from a file of weights) on the device."""
    from dataclasses import replace

    return replace(light, device=device, size=64, batch=8)


@pytest.fixture(scope="session")
def resnet34(tmp_path_factory) -> Path:
    """A file of weights for resnet34, which kit takes for pretrained ones."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import resnet34

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet34.safetensors"
    save_file(resnet34().state_dict(), path)
    return path


@pytest.fixture
def another_process(tmp_path):
    """A function that starts Python code in another process; with visible=False the GPU is hidden there."""
    started = []

    def start(code: str, *arguments: object, visible: bool = True) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        environment |= {} if visible else {"CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
