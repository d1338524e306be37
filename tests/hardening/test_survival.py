"""HARDENING rows 37, 46, 47: what happens around a run while it trains costs nothing that was learned."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fastai.vision.all import Callback

import kit
from kit.errors import OutputError


def same(first: kit.Run, second: kit.Run) -> bool:
    weights = (run.learner.model.state_dict() for run in (first, second))
    return all(torch.equal(one, other) for one, other in zip(*(state.values() for state in weights), strict=True))


class At(Callback):
    """Does something once, after the first training step."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def after_step(self):
        action, self.action = self.action, lambda: None
        action()


# 47 ------------------------------------------------------------------------------------------------------------------


def test_47_two_threads_take_turns_and_both_get_the_weights_of_a_run_alone(shapes, tiny, tmp_path, run):
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(kit.fine_tune, shapes, tiny, out=tmp_path / name, onnx=False) for name in "ab"]
    first, second = (one.result() for one in started)
    assert same(first, second)
    assert same(first, run)


def test_47_the_second_run_into_one_folder_stops_before_it_trains(shapes, tiny, tmp_path):
    refused = []

    def again():
        with pytest.raises(OutputError, match="another kit is writing .*run") as caught:
            kit.fine_tune("no such source", tiny, out=tmp_path / "run")
        refused.append(caught.value.fix)

    first = kit.fine_tune(shapes, tiny, out=tmp_path / "run", onnx=False, cbs=[At(again)])
    assert refused == ["wait until that has ended, or choose another folder (--out)"]
    assert (first.folder / "result.json").is_file()


def test_47_runs_of_one_second_have_folders_of_their_own(shapes, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kit.runs.time.strftime", lambda form: "20261121-153000")
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(kit.fine_tune, shapes, tiny, onnx=False) for _ in "ab"]
    name = f"{shapes.name}-test_resnet-20261121-153000"
    assert sorted(one.result().folder.name for one in started) == [name, f"{name}-2"]
