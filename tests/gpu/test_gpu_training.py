"""Training on a GPU: precision, memory layout, images that stay on the GPU, out of memory, determinism, compilation."""

import gc
import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.vision.all import TensorImage, aug_transforms
from PIL import Image

from kit import data, evaluate, model, train
from kit.data.cached_dl import crop_or_pad
from kit.data.transforms import TRAIN, Augment

pytest_plugins = ["gpu_fixtures"]
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("own")]

# Each has code of its own that makes tensors: on a GPU these must be there too.
VARIANTS = {
    "mixup and all that changes batches": {"mixup": 0.4, "progressive": True, "label_smoothing": 0.1, "clip": 0.5},
    "cutmix, balanced sampler": {"cutmix": 1.0, "sampler": "balanced", "accumulate": 2},
    "class weights": {"class_weights": "balanced", "label_smoothing": 0.1},
    "early stopping, presizing": {"patience": 1, "presize": 96, "epochs": 2},
    "worker processes": {"cache": "none", "workers": 2},
    "decoded on disk": {"cache": "disk", "resize": "pad"},
    "rate finder": {"rate": "auto"},
    "head from features": {"layers": "head"},
    "head, then all layers": {"layers": "auto"},
}


def learner(images, recipe, **options):
    train.seed_everything(recipe.seed)
    return model.learner(data.blocks(recipe).dataloaders(data.table(images)), recipe, **options)


def trained(images, recipe, **options):
    learn = learner(images, recipe)
    return learn, train.fine_tune(learn, recipe, **options)


def weights(learn) -> dict:
    return {name: tensor.cpu() for name, tensor in learn.model.state_dict().items()}


def convolutions(learn) -> list:
    return [module for module in learn.model.modules() if isinstance(module, torch.nn.Conv2d)]


@pytest.mark.parametrize("name", VARIANTS)
def test_all_kinds_of_training_run_on_it(small, many, device, name, monkeypatch):
    monkeypatch.setattr("kit.train.rates.STEPS", 20)
    learn, history = trained(many, replace(small, **VARIANTS[name]))
    assert history.rows
    assert {parameter.device.type for parameter in learn.model.parameters()} == {device}
    result = evaluate.evaluate(learn)
    assert 0 <= result.error_rate.value <= 1
    assert evaluate.evaluate_views(learn, result, 2).n == result.n


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_the_other_tasks_run_on_it(small, many, device, task, tmp_path):
    import kit

    rows = data.table(many)
    labels = rows["label"] if task == "multilabel" else rows["path"].map(len).add(rows.index).astype(str)
    labelled = rows[["path"]].assign(label=labels.tolist())
    for layers in ("whole", "head"):
        run = kit.fine_tune(labelled, replace(small, task=task, layers=layers), out=tmp_path / layers)
        assert run.learner.dls.device.type == device
        assert (run.bundle / "model.onnx").is_file()


def expected_dtype(device: str) -> torch.dtype:
    """The precision that "auto" should have, from what torch itself says of the device."""
    if device == "cpu":
        return torch.bfloat16 if any(map(torch.cpu.get_capabilities().get, ("amx_bf16", "avx512_bf16"))) else None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@pytest.mark.parametrize("asked", ["auto", "bf16", "fp16", "fp32"])
def test_activations_have_the_precision_and_channels_are_last(small, many, device, asked):
    if (asked, device) == ("fp16", "cpu"):
        pytest.skip("needs a GPU: fp16 is refused on a CPU")
    recipe, seen = replace(small, precision=asked), []
    learn = learner(many, recipe)
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    expected = expected_dtype(device) or torch.float32 if asked == "auto" else dtypes[asked]
    before = weights(learn)

    def look(module, inputs, output):
        layout = output.is_contiguous(memory_format=torch.channels_last)
        seen.append((module.training, output.dtype, output.device.type, layout))

    convolutions(learn)[2].register_forward_hook(look)
    history = train.fine_tune(learn, recipe)
    assert {facts for facts in seen if facts[0]} == {(True, expected, device, True)}
    assert {dtype for training, dtype, *_ in seen if not training} == {torch.float32}
    after = weights(learn)
    assert {tensor.dtype for tensor in after.values() if tensor.is_floating_point()} == {torch.float32}
    assert not all(torch.equal(before[name], after[name]) for name in before)
    assert history.rows[-1]["valid_loss"] < 3


@pytest.mark.parametrize("how", ["crop", "pad"])
def test_decoded_images_wait_on_the_gpu_and_give_the_batches_of_the_cpu_in_every_bit(small, device, tmp_path, how):
    for number in range(20):
        size = (60 + 9 * number, 50) if number % 2 else (50, 60 + 9 * number)
        path = tmp_path / "images" / "ab"[number % 4 // 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 60).convert("RGB").save(path)
    recipe = replace(small, augment=False, size=48, batch=4, resize=how)
    dls = data.blocks(recipe).dataloaders(data.table(tmp_path / "images"))
    assert data.cache_images(dls, recipe.cache) == "memory"
    loader = dls.train
    if device == "cuda":
        assert loader.resident.pixels.device.type == "cuda"
        assert loader.resident.pixels.numel() == loader.images.pixels.size
    numbers, expected = [5, 0, 7, 3], np.zeros((4, 48, 48, 3), np.uint8)
    loader.rng = random.Random(3)
    ((x, _),) = loader.create_batches(numbers)
    generator = np.random.default_rng(random.Random(3).getrandbits(64))
    for place, number in enumerate(numbers):
        crop_or_pad(loader.images[number], expected[place], generator)
    assert x.device.type == device
    assert np.array_equal(x.cpu().permute(0, 2, 3, 1).numpy(), expected)
    batch, labels = next(iter(loader))
    assert (batch.device.type, labels.device.type) == (device, device)


def test_loading_processes_use_pinned_memory_for_a_gpu(small, many, device):
    recipe = replace(small, cache="none", workers=2)
    loader = data.blocks(recipe).dataloaders(data.table(many)).train
    assert loader.fake_l.pin_memory == (device == "cuda")
    batch, _ = next(iter(loader))
    assert batch.device.type == device


def test_augmentation_on_it_gives_the_images_of_fastais_own(device):
    images = TensorImage(torch.rand(6, 3, 52, 36, generator=torch.Generator().manual_seed(3)).to(device))
    transforms, made = aug_transforms(size=24), []
    for ours in (True, False):
        train.seed_everything(7)
        batch = (images.clone(), torch.arange(6, device=device))
        for step in [Augment(transforms)] if ours else sorted(transforms, key=lambda one: one.order):
            batch = step(batch, split_idx=TRAIN)
        made.append(batch[0])
    assert made[0].device.type == device
    torch.testing.assert_close(*map(torch.Tensor.cpu, made), rtol=0, atol=2e-3)


def test_a_real_out_of_memory_error_halves_the_batch_and_goes_on(cuda, many, size, capsys, record_property):
    """The limit lies between what batches of 16 and of 64 need, both measured or computed here."""
    recipe = replace(recipe_of("resnet18", cuda, size), batch=64, cache="memory")
    total = torch.cuda.get_device_properties(0).total_memory

    def fit(recipe):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _, history = trained(many, recipe)
        return torch.cuda.max_memory_reserved(), history

    needed, _ = fit(replace(recipe, batch=16))
    capsys.readouterr()
    torch.cuda.set_per_process_memory_fraction(1.5 * needed / total)
    try:
        _, history = fit(recipe)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    record_property("bytes for a batch of 16", needed)
    record_property("halvings of a batch of 64", history.chosen["halvings"])
    assert "out of memory: from the start again with 32 images a batch, 2 batches a step" in capsys.readouterr().err
    assert 1 <= history.chosen["halvings"] <= 3
    assert len(history.rows) == 2


def recipe_of(arch: str, device: str, size: int, **options):
    from kit import Recipe

    options = {"weights": "bundled", "layers": "whole", "workers": 0} | options
    return Recipe(arch=arch, device=device, size=size, **options)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_seed_gives_the_same_bits_again(many, device, size, precision, record_property):
    """Where it does not, the message names the operations that have no deterministic implementation."""
    recipe = recipe_of("resnet18", device, size, precision=precision, batch=32)
    first, second = (weights(trained(many, recipe)[0]) for _ in range(2))
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    record_property("tensors that differ", len(differing))
    if differing:
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                trained(many, recipe)
        finally:
            torch.use_deterministic_algorithms(False)
        named = sorted({str(one.message).split(" does not have")[0] for one in said if "determin" in str(one.message)})
        record_property("operations without a deterministic implementation", "; ".join(named))
        pytest.fail(f"{len(differing)} of {len(first)} tensors differ; not deterministic: {named}")


def test_compiled_it_trains_as_it_does_otherwise(cuda, many, size, record_property):
    losses, seconds = [], []
    for compiled in (False, True):
        recipe = recipe_of("resnet18", cuda, size, precision="fp32", batch=32, compile=compiled, freeze_epochs=0)
        _, history = trained(many, recipe)
        losses.append([step["loss"] for step in history.steps])
        seconds.append(sum(row["seconds"] for row in history.rows))
    record_property("seconds plain, compiled", [round(one, 2) for one in seconds])
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-2)
    assert losses[1] == pytest.approx(losses[0], rel=0.2)  # Adam's first steps turn rounding into steps of full size


def test_training_by_hand_is_fastais_in_every_bit_in_fp32(device):
    """The comparison of tests/mechanism, with deterministic algorithms of cuDNN and without TF32."""
    import test_same_as_fastai as by_hand
    from fastai.vision.learner import _resnet_split

    from kit.machine import deterministic_algorithms, fp32_convolutions
    from kit.mechanism.trace import digest, first_difference

    dls = by_hand.digit_loaders(32, 3, 64, 8)
    dls.to(torch.device(device))
    theirs, ours = by_hand.OPTIMIZERS["Adam"]
    start, fine_tune = by_hand.big_net().to(device), {"arguments": (1, 2e-3), "freeze_epochs": 1}
    with deterministic_algorithms(), fp32_convolutions():
        first = by_hand.fastai_run(dls, start, _resnet_split, theirs, keep=digest, **fine_tune)
        second = by_hand.run_by_hand(dls, start, by_hand.big_parts, ours, keep=digest, **fine_tune)
    assert len(first) == 12
    assert first_difference(first, second) is None
