"""HARDENING rows 35, 40, 41, 42: training that goes wrong, or is stopped, loses nothing that was worth keeping."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from fastai.vision.all import Callback, CrossEntropyLossFlat

import kit
from kit import bundle, data, model, train
from kit.errors import OutputError, TrainingError
from kit.train import out_of_memory


@pytest.fixture
def recipe(light):
    return light


@pytest.fixture(autouse=True)
def listens_to_ctrl_c():
    """As in a terminal: a shell starts what runs in the background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def learner(shapes, recipe, **options):
    train.seed_everything(recipe.seed)
    return model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe, **options)


def bits(learn) -> dict:
    return {name: tensor.clone() for name, tensor in learn.model.state_dict().items()}


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


class Breaks(Callback):
    """At a step of the whole run (from 1), does something; keeps the weights from before each step."""

    order = -20

    def __init__(self, step: int, event: str, action):
        super().__init__()
        self.at, self.count, self.before = step, 0, []
        setattr(self, event, lambda: action(self) if self.training and self.count == self.at else None)

    def before_batch(self):
        if self.training:
            self.count += 1
            self.before.append(bits(self.learn))


def bad_loss(callback):
    callback.learn.loss_grad = callback.learn.loss_grad * float("nan")
    callback.learn.loss = callback.learn.loss_grad.detach().clone()


def infinite_gradient(callback):
    next(p for p in callback.model.parameters() if p.grad is not None).grad.fill_(float("inf"))


def infinite_variance(callback):
    next(buffer for name, buffer in callback.model.named_buffers() if "running_var" in name).fill_(float("inf"))


def ctrl_c(callback):
    os.kill(os.getpid(), signal.SIGINT)


# 35 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4, "label_smoothing": 0.1, "clip": 1.0}], ids=str)
@pytest.mark.parametrize(
    ("event", "action", "what"),
    [
        ("after_loss", bad_loss, "loss"),
        ("after_loss", infinite_variance, "largest of batch norm's statistics"),
        ("before_step", infinite_gradient, "gradient's norm"),
    ],
)
def test_35_a_loss_that_is_not_finite_stops_within_the_step_and_the_weights_are_those_before_it(
    shapes, recipe, event, action, what, options
):
    recipe = replace(recipe, **options)
    learn, breaks, history = learner(shapes, recipe), Breaks(6, event, action), train.History()
    with pytest.raises(TrainingError) as caught:
        train.fine_tune(learn, recipe, cbs=[breaks], history=history)
    assert breaks.count == 6
    assert len(history.steps) == 5
    assert same(bits(learn), breaks.before[-1])
    assert f"the {what} became" in caught.value.problem
    assert "at step 6 (epoch 2, whole) at the rate" in caught.value.problem
    assert "--rate 0.0002 (highest here: 0.002), or --rate auto" in caught.value.fix
    assert isinstance(learn.loss_func, CrossEntropyLossFlat)
    assert all(p.grad is None for p in learn.model.parameters())
    assert len(train.fine_tune(learn, replace(recipe, freeze_epochs=0)).steps) == 4


def test_35_a_rate_that_is_far_too_high_is_stopped_before_a_weight_is_not_finite(shapes, recipe):
    from fastai.vision.all import SGD

    recipe = replace(recipe, rate=100.0, epochs=20, lr_mult=1)
    learn = learner(shapes, recipe, opt_func=SGD)
    with pytest.raises(TrainingError, match="training stopped before that step"):
        train.fine_tune(learn, recipe)
    assert all(torch.isfinite(tensor).all() for tensor in learn.model.state_dict().values())


def test_35_what_was_learned_before_is_measured_and_saved_without_nan(shapes, recipe, tmp_path):
    with pytest.raises(TrainingError) as caught:
        kit.fine_tune(shapes, recipe, out=tmp_path / "run", onnx=False, cbs=[Breaks(6, "after_loss", bad_loss)])
    assert f"the weights from before it are in {tmp_path / 'run'}" in caught.value.fix
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stopped"].startswith("the loss became nan at step 6")
    assert 0 <= result["error_rate"] <= 1
    again = bundle.learner(tmp_path / "run", learner(shapes, recipe).dls)
    assert all(torch.isfinite(tensor).all() for tensor in again.model.state_dict().values())


def test_35_in_the_first_step_nothing_was_learned_and_nothing_is_saved(shapes, recipe, tmp_path):
    with pytest.raises(TrainingError, match="at step 1 ") as caught:
        kit.fine_tune(shapes, recipe, out=tmp_path / "run", onnx=False, cbs=[Breaks(1, "after_loss", bad_loss)])
    assert "no step was taken yet, so look at the images and the loss first" in caught.value.fix
    assert not (tmp_path / "run").exists()


# 40 ------------------------------------------------------------------------------------------------------------------


def too_much(most: int, error: type[Exception], text: str):
    """A forward hook for a device that holds `most` images a training batch."""

    def look(module, inputs):
        if module.training and len(inputs[0]) > most:
            raise error(text)

    return look


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    ],
)
def test_40_out_of_memory_halves_the_batch_as_if_it_had_been_asked_for(shapes, recipe, capsys, error, text):
    asked, small = replace(recipe, batch=8, mixup=0.4), replace(recipe, batch=2, accumulate=4, mixup=0.4)
    halved = learner(shapes, asked)
    halved.model.register_forward_pre_hook(too_much(2, error, text))
    history = train.fine_tune(halved, asked)
    assert "out of memory: from the start again with 4 images a batch, 2 batches a step" in capsys.readouterr().err
    plain = learner(shapes, small)
    expected = train.fine_tune(plain, small)
    assert same(bits(halved), bits(plain))
    assert history.steps == expected.steps
    told = {name: history.chosen[name] for name in ("batch", "accumulate", "halvings")}
    assert told == {"batch": 2, "accumulate": 4, "halvings": 2}
    assert halved.dls.valid.bs == 2


def test_40_it_may_come_when_the_body_wakes(shapes, recipe):
    """Frozen, a batch of 4 suffices; awake, it does not: all begins again with 2."""
    learn, small = learner(shapes, recipe), replace(recipe, batch=2, accumulate=2)

    def look(module, inputs):
        if module.training and len(inputs[0]) > 2 and next(module.parameters()).requires_grad:
            raise torch.OutOfMemoryError("CUDA out of memory")

    learn.model.register_forward_pre_hook(look)
    history = train.fine_tune(learn, recipe)
    expected = learner(shapes, small)
    train.fine_tune(expected, small)
    assert same(bits(learn), bits(expected))
    assert [row["phase"] for row in history.rows] == ["frozen", "whole"]


def test_40_it_is_written_into_recipe_json(shapes, recipe, tmp_path, monkeypatch):
    made = model.learner

    def on_a_small_device(*args, **kwargs):
        learn = made(*args, **kwargs)
        learn.model.register_forward_pre_hook(too_much(2, torch.OutOfMemoryError, "CUDA out of memory"))
        return learn

    monkeypatch.setattr("kit.train.rates.STEPS", 20)
    monkeypatch.setattr("kit.model.learner", on_a_small_device, raising=False)
    run = kit.fine_tune(shapes, replace(recipe, rate="auto"), out=tmp_path / "run", onnx=False)
    written = json.loads((run.folder / "recipe.json").read_text())
    assert written["recipe"]["batch"] == 4
    assert written["recipe"]["rate"] == "auto"
    chosen = written["chosen"]
    assert (chosen["batch"], chosen["accumulate"], chosen["halvings"]) == (2, 2, 1)
    assert chosen["rate"] == run.history.chosen["rate"] > 0


def test_40_it_is_tried_six_times_more_and_no_batch_is_smaller_than_two(shapes, recipe):
    attempts = []

    def never(accumulate, halvings):
        attempts.append((learn.dls.train.bs, accumulate))
        raise torch.OutOfMemoryError("CUDA out of memory")

    learn = learner(shapes, recipe)
    with pytest.raises(TrainingError, match="out of memory, with 2 images a batch too"):
        out_of_memory.train_in_memory(learn, 1, never)
    assert attempts == [(4, 1), (2, 2)]
    attempts.clear()
    for loader in learn.dls.loaders:
        loader.bs = 1000
    with pytest.raises(TrainingError, match="out of memory, with 15 images a batch too"):
        out_of_memory.train_in_memory(learn, 1, never)
    assert attempts == [(1000, 1), (500, 2), (250, 4), (125, 8), (62, 17), (31, 33), (15, 67)]


@pytest.mark.parametrize("text", ["CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "CUDNN_STATUS_ALLOC_FAILED"])
def test_40_an_attempt_that_failed_in_backward_leaves_no_activations(shapes, recipe, text):
    learn, held = learner(shapes, recipe), []

    def attempt(accumulate, halvings):
        held.append(getattr(learn, "loss_grad", None))
        learn.loss_grad = torch.zeros(1)
        if not halvings:
            raise RuntimeError(text)

    out_of_memory.train_in_memory(learn, 1, attempt)
    assert held == [None, None]


def test_40_another_error_is_no_lack_of_memory(shapes, recipe):
    learn = learner(shapes, recipe)

    def fail(accumulate, halvings):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        out_of_memory.train_in_memory(learn, 1, fail)
    assert learn.dls.train.bs == 4


# 41 ------------------------------------------------------------------------------------------------------------------


def test_41_ctrl_c_measures_and_saves_what_was_learned_and_says_how_to_go_on(shapes, recipe, tmp_path, capsys):
    stops = Breaks(6, "after_step", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        kit.fine_tune(shapes, replace(recipe, epochs=50), out=tmp_path / "run", onnx=False, cbs=[stops])
    said = capsys.readouterr().err
    assert "after 6 steps; what was learned until then is measured and saved" in said
    assert f"to go on from here: kit fine-tune --resume {tmp_path / 'run'}" in said
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stopped"] == "stopped by Ctrl-C"
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["chosen"]["steps"] == 6
    predictor = bundle.load(tmp_path / "run")
    assert len(predictor.predict([shapes / "circle" / "00.png"])) == 1
    on = kit.fine_tune(shapes, replace(recipe, weights=str(tmp_path / "run")), out=tmp_path / "on", onnx=False)
    assert on.learner.spec.weights.kind == "bundle"


def test_41_in_the_first_epoch_too(shapes, recipe, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        kit.fine_tune(shapes, recipe, out=tmp_path / "run", onnx=False, cbs=[Breaks(2, "after_batch", ctrl_c)])
    assert {"result.json", "history.csv", "bundle", "pictures"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_41_before_the_first_step_there_is_nothing_to_save(shapes, recipe, tmp_path):
    class Early(Callback):
        def before_fit(self):
            ctrl_c(self)

    with pytest.raises(KeyboardInterrupt):
        kit.fine_tune(shapes, recipe, out=tmp_path / "run", onnx=False, cbs=[Early()])
    assert not (tmp_path / "run").exists()


def test_41_with_early_stopping_the_best_weights_so_far_are_kept(shapes, recipe):
    learn = learner(shapes, recipe)
    ends = []

    class Worse(Callback):
        order = 20

        def after_loss(self):
            if not self.training:
                self.learn.loss = torch.tensor(float(len(ends)))

        def after_epoch(self):
            ends.append(bits(self.learn))

    with pytest.raises(KeyboardInterrupt):
        options = replace(recipe, patience=5, epochs=4)
        train.fine_tune(learn, options, cbs=[Worse(), Breaks(11, "after_step", ctrl_c)])
    assert len(ends) == 2
    assert same(bits(learn), ends[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_41_the_command_ends_with_exit_code_130(shapes, tmp_path, workers):
    arguments = ["fine-tune", str(shapes), "--weights", "none", "--size", "32", "--batch", "4", "--epochs", "100000"]
    command = [sys.executable, "-m", "kit.cli.main", *arguments, "--workers", workers, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if " whole " in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "to go on from here: kit fine-tune" in said
    assert (tmp_path / "run" / "bundle" / "model.safetensors").is_file()


# 42 ------------------------------------------------------------------------------------------------------------------


def taken(folder):
    (folder / "run").mkdir()
    (folder / "run" / "mine.txt").touch()
    return folder / "run", "exists and is not empty"


def a_file(folder):
    (folder / "run").touch()
    return folder / "run", "is a file; a folder was expected"


def below_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "run", "cannot be written"


def read_only(folder):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (folder / "locked").mkdir(mode=0o555)
    return folder / "locked" / "run", "cannot be written: Permission denied"


@pytest.mark.parametrize("case", [taken, a_file, below_a_file, read_only])
def test_42_an_output_folder_that_cannot_be_is_an_error_before_anything_is_read(case, tmp_path):
    folder, text = case(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=text) as caught:
        kit.fine_tune("no such source", out=folder)
    assert "--out" in caught.value.fix
    assert sorted(tmp_path.rglob("*")) == before


def test_42_a_disk_that_is_read_only_is_told_before_anything_is_read(tmp_path, monkeypatch):
    """As root, too: the system's own refusal, given by the folder."""

    def refuse(self, *args, **kwargs):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be written: Read-only file system"):
        kit.fine_tune("no such source", out=tmp_path / "run")
