"""HARDENING rows 36-39, 41: a stopped run goes on from its last checkpoint, as if it had never been stopped."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from fastai.vision.all import Callback

import kit
from kit import data, model, train
from kit.errors import DataError, OutputError, RecipeError
from kit.train.checkpoint import checkpoints, read_checkpoint

ALWAYS = 1e-9  # minutes between checkpoints: one after each batch
ODD = {"mixup": 0.4, "progressive": True, "accumulate": 3, "patience": 1, "label_smoothing": 0.1, "clip": 0.5}


class Killed(BaseException):
    """What ends a training after a checkpoint, as a kill would."""


class Kill(Callback):
    """Raises at the `count`-th training batch or epoch, after the checkpoint was written."""

    order = 2000

    def __init__(self, event: str, count: int):
        super().__init__()
        self.event, self.left = event, count

    def after_batch(self):
        if self.training:
            self._count("batch")

    def after_epoch(self):
        self._count("epoch")

    def _count(self, event):
        self.left -= event == self.event
        if not self.left:
            raise Killed


@pytest.fixture
def recipe(light):
    return replace(light, epochs=2, checkpoint_every=ALWAYS)


def state(run: kit.Run) -> list:
    """All that a run learned: weights, optimiser, history but for seconds, and predictions."""
    optimiser = [list(one.items()) for one in run.learner.opt.state_dict()["state"]]
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in run.history.rows]
    history = [rows, run.history.steps, run.history.ends, run.history.chosen]
    return [run.learner.model.state_dict(), optimiser, history, run.evaluation.predictions.to_csv()]


def bits(value):
    """`value` with the bytes of each tensor instead of the tensor."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(one) for key, one in value.items()}
    return [bits(one) for one in value] if isinstance(value, list | tuple) else value


def killed(images, recipe, folder, event="batch", count=6):
    with pytest.raises(Killed):
        kit.fine_tune(images, recipe, out=folder, onnx=False, cbs=[Kill(event, count)])
    assert checkpoints(folder / "checkpoint")


def resumed(folder, **options) -> kit.Run:
    return kit.resume(folder, cbs=[], **options)


def assert_goes_on(images, recipe, folder, points):
    whole = kit.fine_tune(images, recipe, out=folder / "whole", onnx=False)
    for event, count in points:
        run = folder / f"{event}-{count}"
        killed(images, recipe, run, event, count)
        assert bits(state(resumed(run))) == bits(state(whole)), (event, count)
        assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in whole.folder.iterdir())


# 38 ------------------------------------------------------------------------------------------------------------------


def test_38_from_each_epoch_and_inside_one_it_is_the_run_that_was_never_stopped(shapes, recipe, tmp_path):
    assert_goes_on(shapes, recipe, tmp_path, [("epoch", 1), ("batch", 10)])


def test_38_with_all_that_has_a_state_of_its_own(shapes, recipe, tmp_path):
    assert_goes_on(shapes, replace(recipe, **ODD), tmp_path, [("batch", 6)])


@pytest.mark.slow
def test_38_with_worker_processes(shapes, recipe, tmp_path):
    assert_goes_on(shapes, replace(recipe, workers=2, cache="none", sampler="balanced"), tmp_path, [("batch", 7)])


def test_38_of_all_layers_after_a_head_from_features(shapes, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.train.transfer.Trial.better", True)
    recipe = replace(recipe, layers="auto", mixup=0.4)
    whole = kit.fine_tune(shapes, recipe, out=tmp_path / "whole", onnx=False)
    killed(shapes, recipe, tmp_path / "run", "batch", 2)
    monkeypatch.setattr("kit.train.transfer._decide", None)  # not asked again
    assert bits(state(resumed(tmp_path / "run"))) == bits(state(whole))


OPTIONS = [{"cache": "none"}, {}, {"mixup": 0.4}, {"cutmix": 1.0}, {"progressive": True}, {"accumulate": 3}]
OPTIONS += [{"patience": 1, "epochs": 4}, {"precision": "bf16"}, {"weights": "none"}, {"presize": 48}]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_38_from_every_epoch_and_five_points_inside_one(shapes, recipe, tmp_path, options, workers):
    points = [("epoch", 1), ("epoch", 2), *(("batch", count) for count in (1, 2, 3, 5, 6))]
    points = points if workers == 0 else [("epoch", 1), ("batch", 2), ("batch", 5)]  # processes take long to start
    assert_goes_on(shapes, replace(recipe, **options, workers=workers), tmp_path, points)


@pytest.mark.slow
def test_38_a_run_with_smaller_batches_after_out_of_memory_goes_on_with_them(shapes, recipe, tmp_path, monkeypatch):
    made = kit.model.learner

    def on_a_small_device(*args, **kwargs):
        def look(module, inputs):
            if module.training and len(inputs[0]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

        learn = made(*args, **kwargs)
        learn.model.register_forward_pre_hook(look)
        return learn

    monkeypatch.setattr("kit.model.learner", on_a_small_device, raising=False)
    assert_goes_on(shapes, recipe, tmp_path, [("batch", 12)])


def test_38_a_damaged_checkpoint_is_passed_over_for_the_one_before(shapes, recipe, tmp_path, capsys):
    whole = kit.fine_tune(shapes, recipe, out=tmp_path / "whole", onnx=False)
    killed(shapes, recipe, tmp_path / "run")
    last = checkpoints(tmp_path / "run" / "checkpoint")[-1]
    content = bytearray(last.read_bytes())
    content[-100] ^= 1
    last.write_bytes(content)
    assert bits(state(resumed(tmp_path / "run"))) == bits(state(whole))
    assert f"{last} is damaged (its checksum is wrong); an earlier one is used" in capsys.readouterr().err


def test_38_what_only_python_can_give_has_to_be_given_again(shapes, recipe, tmp_path):
    from fastai.vision.all import SGD

    table = kit.data.table(shapes)[["path", "label"]]
    with pytest.raises(Killed):
        kit.fine_tune(table, recipe, out=tmp_path / "run", onnx=False, opt_func=SGD, cbs=[Kill("epoch", 1)])
    with pytest.raises(RecipeError, match="started in Python with source, cbs, opt_func") as caught:
        kit.resume(tmp_path / "run")
    assert "source=..., cbs=..., opt_func=...), with the same values" in caught.value.fix
    whole = kit.fine_tune(table, recipe, out=tmp_path / "whole", onnx=False, opt_func=SGD)
    assert bits(state(resumed(tmp_path / "run", source=table, opt_func=SGD))) == bits(state(whole))


def test_38_where_there_is_nothing_to_go_on_with_it_is_told(run, tmp_path):
    with pytest.raises(OutputError, match="is finished: there is no checkpoint/run.json"):
        kit.resume(run.folder)
    with pytest.raises(OutputError, match="holds no run"):
        kit.resume(tmp_path)


def test_38_a_new_run_into_that_folder_is_told_to_go_on(shapes, recipe, tmp_path):
    killed(shapes, recipe, tmp_path / "run", "epoch", 1)
    with pytest.raises(OutputError, match="holds a run that was stopped") as caught:
        kit.fine_tune(shapes, recipe, out=tmp_path / "run")
    assert f"kit fine-tune --resume {tmp_path / 'run'}" in caught.value.fix


# 37 ------------------------------------------------------------------------------------------------------------------


class SmallFiles(Callback):
    """At the end of the third epoch files cannot be larger than 1 MB, as on a disk that is full."""

    def after_epoch(self):
        size = 1_000_000 if len(self.history.rows) == 2 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_37_a_full_disk_costs_one_checkpoint_and_training_goes_on(shapes, recipe, tmp_path, capsys):
    recipe = replace(recipe, epochs=3, checkpoint_every=1e6)
    with pytest.raises(Killed):
        cbs = [SmallFiles(), Kill("epoch", 4)]
        kit.fine_tune(shapes, recipe, out=tmp_path / "run", onnx=False, cbs=cbs)
    said = capsys.readouterr().err
    assert said.count("no checkpoint was written, and training goes on: ") == 1
    folder = tmp_path / "run" / "checkpoint"
    assert [read_checkpoint(path)["epoch"] for path in checkpoints(folder)] == [1, 3]
    assert len(list(folder.iterdir())) == 4


# 39 ------------------------------------------------------------------------------------------------------------------


def test_39_changed_images_are_named_and_refused_unless_that_is_allowed(shapes, recipe, tmp_path):
    images = shutil.copytree(shapes, tmp_path / "images")
    killed(images, recipe, tmp_path / "run")
    side = kit.data.table(images).set_index("path")["split"]
    (images / "circle" / "00.png").unlink()
    shutil.copy(images / "square" / "00.png", images / "square" / "new.png")
    shutil.copy(images / "square" / "02.png", images / "square" / "01.png")
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(DataError, match=r"1 removed \(00.png\); 1 changed \(01.png\); 1 added \(new.png\)") as caught:
        resumed(tmp_path / "run")
    assert "--allow-changed-data" in caught.value.fix
    assert sorted((tmp_path / "run").rglob("*")) == before
    run = resumed(tmp_path / "run", allow_changed_data=True)
    assert len(run.table) == 23
    assert run.table.set_index("path")["split"].to_dict() == side.drop(str(images / "circle" / "00.png")).to_dict()
    assert len(run.history.rows) == 3


# 41 ------------------------------------------------------------------------------------------------------------------


class Signal(Callback):
    """Sends a signal to this process at an event of the second epoch."""

    def __init__(self, number, event, training):
        super().__init__()
        self.number, self.training_wanted = number, training
        setattr(self, event, self._send)

    def _send(self):
        if len(self.history.rows) == 1 and self.training == self.training_wanted and self.number:
            number, self.number = self.number, None
            os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "event", "training"),
    [(signal.SIGINT, "after_backward", True), (signal.SIGTERM, "after_pred", False)],
)
def test_41_a_signal_ends_training_after_the_batch_with_a_checkpoint(
    shapes, recipe, tmp_path, capsys, number, event, training, monkeypatch
):
    monkeypatch.setattr(signal, "getsignal", dict(kit.signals.USUAL).get)  # of the process, not of pytest
    recipe = replace(recipe, checkpoint_every=1e6)
    whole = kit.fine_tune(shapes, recipe, out=tmp_path / "whole", onnx=False)
    with pytest.raises(BaseException) as caught:
        kit.fine_tune(shapes, recipe, out=tmp_path / "run", onnx=False, cbs=[Signal(number, event, training)])
    if number == signal.SIGTERM:
        assert isinstance(caught.value, SystemExit)
        assert caught.value.code == 143
    else:
        assert isinstance(caught.value, KeyboardInterrupt)
    assert f"to go on from here: kit fine-tune --resume {tmp_path / 'run'}" in capsys.readouterr().err
    told = json.loads((tmp_path / "run" / "result.json").read_text())["stopped"]
    assert told == f"stopped by {'SIGTERM' if number == signal.SIGTERM else 'Ctrl-C'}"
    kept = read_checkpoint(checkpoints(tmp_path / "run" / "checkpoint")[-1])
    assert (kept["epoch"], kept["batch"]) == (0, 1 if training else 4)
    assert bits(state(resumed(tmp_path / "run"))) == bits(state(whole))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stopped"] is None
    assert not (tmp_path / "run" / "checkpoint").exists()


class LastMoment(Callback):
    """Sends a signal when early stopping is about to end the last phase."""

    order = 62

    def after_epoch(self):
        if self.history.phase == "whole" and len(self.history.rows) == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_41_a_signal_as_early_stopping_ends_training_is_not_lost(shapes, light, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", dict(kit.signals.USUAL).get)
    never = "fastai.callback.tracker.TrackerCallback.after_epoch"
    monkeypatch.setattr(never, lambda self: setattr(self, "new_best", False))
    signals = kit.signals.Signals()
    recipe = replace(light, epochs=4, patience=2)
    train.seed_everything(0)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    with signals.handled(), pytest.raises(KeyboardInterrupt):
        train.fine_tune(learn, recipe, cbs=[LastMoment()], checkpoint=train.Checkpoint(tmp_path, 1e6, signals))
    assert not signals.deferred


# 36 ------------------------------------------------------------------------------------------------------------------


PROGRAM = """
import json, pathlib, sys
from kit import Recipe, train
from kit.pipeline import fine_tune, resume

images, recipe, folder = sys.argv[1:]
train.Checkpoint  # imports torch and fastai
print("ready", flush=True)
if (pathlib.Path(folder) / "checkpoint" / "run.json").is_file():
    resume(folder)
else:
    fine_tune(images, Recipe.from_json(json.loads(recipe)), out=folder, onnx=False)
"""


@pytest.mark.slow
def test_36_killed_at_random_points_it_always_goes_on_and_leaves_no_litter(shapes, light, tmp_path):
    recipe = replace(light, epochs=4)
    whole = kit.fine_tune(shapes, recipe, out=tmp_path / "whole", onnx=False)
    values = json.dumps(replace(recipe, checkpoint_every=ALWAYS).to_json())
    command = [sys.executable, "-c", PROGRAM, str(shapes), values]
    dice, kills, finished = random.Random(36), 0, 0
    while kills < 20 or not finished:
        run = tmp_path / f"run-{finished}"
        before = steps(run)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        process = subprocess.Popen([*command, str(run)], **pipes)
        assert process.stdout.readline() == "ready\n"
        try:
            said = process.communicate(timeout=dice.uniform(0, 6))[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, kills = process.communicate()[1], kills + 1
            if not (run / "result.json").exists() or (run / "checkpoint").exists():
                assert steps(run) >= before
                continue
        assert process.returncode in (0, -signal.SIGKILL), said
        assert same_files(run, whole.folder)
        finished += 1


def test_36_what_a_killed_process_had_not_finished_is_removed_when_the_run_goes_on(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    for name in (".000003.safetensors.12-34.partial", ".tmpCKKwFF"):
        (tmp_path / "checkpoint" / name).touch()
    train.Checkpoint(tmp_path, 5, kit.signals.Signals()).load()
    assert list((tmp_path / "checkpoint").iterdir()) == []


def steps(run) -> int:
    """The steps of the last checkpoint of a run; all of its checkpoints can be read."""
    kept = [len(read_checkpoint(path)["callbacks"]["history"]["steps"]) for path in checkpoints(run / "checkpoint")]
    return max(kept, default=0)


def same_files(run, whole) -> bool:
    """The same files, and the same weights and predictions."""
    files = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (run, whole)]
    names = ("predictions.csv", "bundle/model.safetensors")
    return files[0] == files[1] and all((run / name).read_bytes() == (whole / name).read_bytes() for name in names)
