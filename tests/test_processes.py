"""What several processes cannot do is refused before anything is read. tests/train/test_data_parallel.py starts two."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import kit
from kit import processes
from kit.errors import RecipeError
from kit.train.data_parallel import with_synchronised_norms


def test_python_m_kit_is_the_program_and_other_commands_refuse_several_processes():
    command = [sys.executable, "-m", "kit", "check", "photos"]
    ended = subprocess.run(command, env=os.environ | {"WORLD_SIZE": "2"}, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "error: kit check uses one process, and 2 were started together" in ended.stderr


def test_cross_validation_refuses_several_processes(shapes, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="cross-validation uses one process, and 2 were started together"):
        kit.cross_validate(shapes, tiny, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_synchronised_batch_norms_are_refused_on_a_cpu(shapes, tiny, tmp_path):
    with pytest.raises(RecipeError, match="SyncBatchNorm does not run on the device cpu"):
        kit.fine_tune(shapes, replace(tiny, sync_bn=True), out=tmp_path / "run")


def test_a_network_with_synchronised_norms_shares_all_tensors_and_computes_the_same():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    other = with_synchronised_norms(network)
    assert isinstance(other[1], nn.SyncBatchNorm)
    assert isinstance(network[1], nn.BatchNorm2d)
    for name, tensor in network.state_dict().items():
        assert other.state_dict()[name].data_ptr() == tensor.data_ptr()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(x), other(x))


def test_one_process_has_all_of_the_work():
    assert (processes.rank(), processes.count(), processes.share(5)) == (0, 1, slice(0, 5))
    assert processes.first(max, 1, 2) == 2
    assert processes.gathered("x") == ["x"]
    assert processes.total(0.5, 2) == [0.5, 2]
