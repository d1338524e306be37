"""The arithmetic of training: chosen from facts, really on, and gone afterwards."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from kit import data, model, train
from kit.errors import RecipeError, TrainingError
from kit.train.precision import LossScaling, choose_precision, precision_for

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(
    ("asked", "device", "facts", "name"),
    [
        ("auto", CPU, {"amx_bf16": True}, "bf16"),
        ("auto", CPU, {"avx512_bf16": True}, "bf16"),
        ("auto", CPU, {"avx2": True}, "fp32"),
        ("bf16", CPU, {}, "bf16"),
        ("fp32", CPU, {"amx_bf16": True}, "fp32"),
        ("auto", CUDA, {"capability": (9, 0)}, "bf16"),
        ("auto", CUDA, {"capability": (7, 5)}, "fp16"),
        ("auto", CUDA, {"capability": (6, 1)}, "fp32"),
        ("fp16", CUDA, {"capability": (9, 0)}, "fp16"),
        ("auto", MPS, {}, "fp32"),
    ],
)
def test_facts_about_the_device_decide(asked, device, facts, name):
    chosen = choose_precision(asked, device, facts)
    assert chosen.name == name
    assert chosen.reason


@pytest.mark.parametrize(
    ("asked", "device", "facts", "problem"),
    [
        ("fp16", CPU, {}, "precision fp16 is for GPUs"),
        ("bf16", CUDA, {"capability": (7, 5)}, r"this GPU \(compute capability 7.5\) has no bf16"),
        ("bf16", MPS, {}, "precision bf16 is not used on mps"),
    ],
)
def test_what_a_device_cannot_do_is_refused(asked, device, facts, problem):
    with pytest.raises(RecipeError, match=problem):
        choose_precision(asked, device, facts)


def a_convolution(learn) -> torch.nn.Module:
    return [module for module in learn.model.modules() if isinstance(module, torch.nn.Conv2d)][2]


def fitted(shapes, tiny, precision: str) -> tuple[list, torch.nn.Module]:
    """The dtype and layout of a convolution's output in each training and validation batch, and the model after."""
    recipe = replace(tiny, precision=precision)
    train.seed_everything(1)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    seen = []

    def look(module, inputs, output):
        last = output.is_contiguous(memory_format=torch.channels_last)
        seen.append((module.training, output.dtype, last))

    a_convolution(learn).register_forward_hook(look)
    train.fine_tune(learn, recipe)
    return seen, learn


def test_bf16_is_really_on_in_training_and_validation_is_fp32(shapes, tiny):
    seen, learn = fitted(shapes, tiny, "bf16")
    assert {dtype for training, dtype, _ in seen if training} == {torch.bfloat16}
    assert {dtype for training, dtype, _ in seen if not training} == {torch.float32}
    assert all(last for _, _, last in seen)
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32}
    assert next(learn.model.parameters()).is_contiguous()


def test_fp32_stays_fp32(shapes, tiny):
    seen, _ = fitted(shapes, tiny, "fp32")
    assert {dtype for _, dtype, _ in seen} == {torch.float32}


def test_nothing_is_left_of_it_even_when_a_batch_fails(shapes, tiny):
    recipe = replace(tiny, precision="bf16")
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)

    def fail(*args):
        raise RuntimeError("on purpose")

    a_convolution(learn).register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        train.fine_tune(learn, recipe)
    assert not torch.is_autocast_enabled("cpu")


def test_loss_scaling_skips_a_step_that_overflowed_and_goes_on(shapes, tiny):
    """The scaler of fp16, tried here in fp32: scaled gradients, unscaled steps, one infinite gradient skipped."""
    from fastai.vision.all import Callback

    class Overflow(Callback):
        order, weights = 5, ()

        def before_step(self):
            if self.iter == 1:
                next(iter(self.model.parameters())).grad.fill_(float("inf"))
            self.weights += (self.model[1][-1].weight.detach().clone(),)

    recipe = replace(tiny, precision="fp32")
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    overflow = Overflow()
    train.fine_tune(learn, recipe, cbs=[LossScaling(CPU), overflow])
    changed = [not torch.equal(a, b) for a, b in pairwise(overflow.weights)]
    assert changed == [True, False, True]
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


def losses(shapes, recipe) -> list[float]:
    train.seed_everything(1)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
    return [step["loss"] for step in train.fine_tune(learn, recipe).steps]


def test_a_compiled_network_trains_as_the_other_does(shapes, tiny, monkeypatch):
    """Without the C++ compiler's part, which takes a minute: the graph is caught and differentiated all the same."""
    calls, compile = [], torch.compile

    def without_compiler(forward):
        quick = compile(forward, backend="aot_eager")
        return lambda *inputs: calls.append(torch.is_grad_enabled()) or quick(*inputs)

    monkeypatch.setattr(torch, "compile", without_compiler)
    recipe = replace(tiny, precision="fp32")
    plain = losses(shapes, recipe)
    assert not calls
    torch.testing.assert_close(losses(shapes, replace(recipe, compile=True)), plain, rtol=1e-3, atol=1e-3)
    assert calls == [True] * len(plain)


def test_where_nothing_can_be_compiled_the_first_step_says_why(shapes, tiny, monkeypatch):
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/such/compiler",))
    with pytest.raises(TrainingError, match="the network cannot be compiled on this machine .*/no/such/compiler"):
        losses(shapes, replace(tiny, compile=True))


def test_on_a_cpu_bf16_is_not_used_for_images_whose_gradients_it_gets_wrong(shapes, tiny, monkeypatch):
    monkeypatch.setattr("kit.train.precision.device_facts", lambda device: {"avx512_bf16": True})
    names = {}
    for size in (16, 31, 32):
        recipe = replace(tiny, size=size)
        learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe)
        names[size] = precision_for(learn, recipe).name
    assert names == {16: "fp32", 31: "fp32", 32: "bf16"}
    with pytest.raises(RecipeError, match="bf16 gradients of images under 32 pixels .*, and size is 16"):
        precision_for(learn, replace(tiny, size=16, precision="bf16"))
