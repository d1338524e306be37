"""Images decoded once: the same pixels, the same loaders to fastai, in memory or on the disk, and never stale."""

import errno
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_shapes
from fastai.vision.all import CropPad, Interpretation, TensorCategory, TensorImage
from PIL import Image

from kit import data, evaluate, model, train
from kit.data import decode as store
from kit.data.cached_dl import crop_or_pad
from kit.data.decode import (
    ForPrediction,
    ForTraining,
    cache_file,
    cache_files,
    decode_images,
    make_room,
    open_cache_file,
)
from kit.data.images import open_image, square
from kit.data.resident_images import ResidentImages
from kit.errors import ImageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def wide(tmp_path):
    """Six images of several sizes, wide and tall."""
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        size = (60 + 30 * number, 50) if number % 2 else (50, 60 + 30 * number)
        Image.effect_noise(size, 60).convert("RGB").save(path)
        paths.append(str(path))
    return paths


def loaders(shapes, recipe, **options):
    return data.blocks(recipe, **options).dataloaders(data.table(shapes))


def passes(loader, count: int = 1) -> list:
    return [[(x.clone(), y.clone()) for x, y in loader] for _ in range(count)]


@pytest.mark.parametrize("how", ["crop", "pad", "squish"])
def test_validation_batches_are_those_of_opened_files_in_every_bit(shapes, tiny, how):
    recipe = replace(tiny, resize=how)
    plain, resident = loaders(shapes, recipe), loaders(shapes, recipe)
    assert data.cache_images(resident, recipe.cache) == "memory"
    for (x, y), (other_x, other_y) in zip(passes(plain.valid)[0], passes(resident.valid)[0], strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
        assert (type(other_x), type(other_y)) == (type(x), type(y)) == (TensorImage, TensorCategory)


def test_training_batches_hold_each_image_once_with_its_own_label(shapes, tiny):
    recipe = replace(tiny, augment=False, batch=6)
    dls = loaders(shapes, recipe)
    data.cache_images(dls, recipe.cache)
    items, images = dls.train_ds.items, dls.train.images
    seen = [(x, y) for batch in passes(dls.train)[0] for x, y in zip(*batch, strict=True)]
    assert len(seen) == len(items) // 6 * 6
    whole = {images[number].tobytes(): items["label"].iloc[number] for number in range(len(images))}
    for x, y in seen:
        pixels = (x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert whole[pixels.tobytes()] == dls.vocab[int(y)]


def test_an_image_waits_with_its_short_side_at_the_size_of_training(wide):
    found = decode_images(wide, ForTraining(32, "crop"))
    assert [min(found[number].shape[:2]) for number in range(6)] == [32] * 6
    assert found[5].shape[1] == round(210 * 32 / 50)
    assert decode_images(wide, ForTraining(32, "pad"))[5].shape == (round(50 * 32 / 210), 32, 3)
    assert decode_images(wide, ForTraining(32, "squish"))[5].shape == (32, 32, 3)


def test_for_prediction_it_waits_as_the_square_that_a_bundle_predicts(wide):
    found = decode_images(wide, ForPrediction(24, "crop", 24))
    for number, path in enumerate(wide):
        assert np.array_equal(found[number], np.asarray(square(open_image(path, 24), 24, "crop")))


def test_parts_are_cut_anywhere_along_the_long_side_and_small_ones_put_anywhere():
    dice, image = np.random.default_rng(0), np.arange(4 * 9 * 3, dtype=np.uint8).reshape(4, 9, 3) + 1
    starts = set()
    for _ in range(200):
        place = np.zeros((4, 4, 3), np.uint8)
        crop_or_pad(image, place, dice)
        starts.add(int((place[0, 0, 0] - 1) // 3))
        assert np.array_equal(place, image[:, int((place[0, 0, 0] - 1) // 3) :][:, :4])
    assert starts == {0, 1, 2, 3, 4, 5}
    rows = set()
    for _ in range(100):
        place = np.zeros((6, 9, 3), np.uint8)
        crop_or_pad(image, place, dice)
        rows.add(int(place.any((1, 2)).argmax()))
        assert np.array_equal(place[place.any((1, 2))], image)
    assert rows == {0, 1, 2}


def test_crops_of_resident_images_are_those_of_the_cpu_in_every_bit(wide):
    """Wide and tall ones, cropped along one side or both, or put into a larger square."""
    images = decode_images(wide, ForTraining(32, "crop"))
    resident = ResidentImages(images, torch.device("cpu"))
    for size, numbers in ((32, [5, 0, 3]), (20, [1, 2, 4, 1]), (50, [5, 1]), (90, [0, 3, 5])):
        expected = np.zeros((len(numbers), size, size, 3), np.uint8)
        dice = np.random.default_rng(3)
        for place, number in enumerate(numbers):
            crop_or_pad(images[number], expected[place], dice)
        assert np.array_equal(resident.crops(numbers, size, np.random.default_rng(3)).numpy(), expected)
        part, places = resident.part([5, 0, 3, 1, 2, 4]), [[1, 3, 4, 2, 5, 0][number] for number in numbers]
        assert np.array_equal(part.crops(places, size, np.random.default_rng(3)).numpy(), expected)
        assert part.pixels is resident.pixels


@pytest.mark.parametrize("how", ["crop", "pad"])
def test_batches_of_resident_images_are_those_of_the_cpu_in_every_bit(shapes, tiny, how):
    recipe, made = replace(tiny, resize=how), []
    for resident in (False, True):
        train.seed_everything(1)
        dls = loaders(shapes, recipe)
        data.cache_images(dls, recipe.cache)
        for loader in dls.loaders:
            assert loader.resident is None  # a CPU has no other memory
            if resident:
                loader.resident = ResidentImages(loader.images, torch.device("cpu"))
        assert dls.train.new().resident is dls.train.resident
        dls.train.rng = random.Random(1)
        made.append(passes(dls.train) + passes(dls.valid))
    for (x, y), (other_x, other_y) in zip(*([pair for all_of in one for pair in all_of] for one in made), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
        assert (type(other_x), type(other_y)) == (TensorImage, TensorCategory)


def test_a_training_with_a_seed_is_the_same_in_every_bit_again_and_another_with_another(shapes, light):
    def weights(seed: int) -> list:
        recipe = replace(light, seed=seed)
        train.seed_everything(seed)
        learn = model.learner(loaders(shapes, recipe), recipe)
        train.fine_tune(learn, recipe)
        return [one.clone() for one in learn.model.state_dict().values()]

    first, second, other = weights(1), weights(1), weights(2)
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, other))


def test_memory_and_disk_train_alike_in_every_bit(shapes, light):
    made = []
    for where in ("memory", "disk", "disk"):
        recipe = replace(light, cache=where)
        train.seed_everything(1)
        learn = model.learner(loaders(shapes, recipe), recipe)
        history = train.fine_tune(learn, recipe)
        assert history.chosen["cache"] == where
        made.append(learn.model.state_dict())
    assert len(cache_files()) == 2
    for other in made[1:]:
        assert all(torch.equal(made[0][name], other[name]) for name in made[0])


def test_fastais_own_ways_work_as_ever(shapes, light):
    recipe = replace(light, tta=1)
    learn = model.learner(loaders(shapes, recipe), recipe)
    train.fine_tune(learn, recipe)
    assert learn.dls.train.cached
    learn.dls.show_batch(max_n=2)
    with learn.no_bar(), learn.no_logging():
        assert (
            len(learn.get_preds(dl=learn.dls.test_dl([str(path) for path in sorted(shapes.rglob("*.png"))[:3]]))[0])
            == 3
        )
        assert len(learn.get_preds(ds_idx=0)[0]) == len(learn.dls.train_ds)
        interpretation = Interpretation.from_learner(learn)
    assert len(interpretation.top_losses(2)[0]) == 2
    result = evaluate.evaluate(learn)
    assert evaluate.evaluate_views(learn, result, 1).n == result.n
    assert learn.dls.valid.new(bs=1).images is learn.dls.valid.images


def test_augmented_views_of_validation_images_are_opened_anew(shapes, tiny):
    dls = loaders(shapes, tiny)
    data.cache_images(dls, tiny.cache)
    assert dls.valid.cached
    with dls.valid_ds.set_split_idx(0):
        assert not dls.valid.cached


def test_a_loader_with_transforms_of_ones_own_stays_as_it_was(shapes, tiny):
    dls = loaders(shapes, tiny, item_tfms=[CropPad(32)])
    assert data.cache_images(dls, tiny.cache) == "none"
    assert dls.train.images is None
    assert data.cache_images(loaders(shapes, tiny), "none") == "none"


def test_a_transform_of_ones_own_with_the_name_of_kits_is_not_replaced(shapes, tiny):
    class Square(CropPad):
        pass

    dls = loaders(shapes, tiny, item_tfms=[Square(32)])
    assert data.cache_images(dls, tiny.cache) == "none"


def test_the_balanced_sampler_draws_from_decoded_images_too(shapes, tiny):
    recipe = replace(tiny, sampler="balanced")
    dls = loaders(shapes, recipe)
    assert data.cache_images(dls, recipe.cache) == "memory"
    assert dls.train.cached
    assert len(passes(dls.train)[0]) == len(dls.train)


def test_a_changed_image_is_seen(shapes, tmp_path):
    folder = write_shapes(tmp_path / "own", count=2)
    prepare = ForTraining(32, "crop")

    def pixels() -> bytes:
        rows = data.table(folder, split="random")
        return decode_images(rows["path"].tolist(), prepare, rows["sha256"].tolist(), "disk").pixels.tobytes()

    first = pixels()
    assert pixels() == first
    assert len(cache_files()) == 1
    Image.new("RGB", (64, 64), "red").save(folder / "circle" / "00.png")
    assert pixels() != first
    assert len(cache_files()) == 2


def test_without_hashes_sizes_and_times_tell_a_change(wide):
    prepare = ForTraining(32, "crop")
    before = cache_file(wide, prepare)
    assert cache_file(wide, prepare) == before
    Image.new("RGB", (64, 64), "red").save(wide[0])
    assert cache_file(wide, prepare) != before
    assert cache_file(wide, ForTraining(33, "crop")) != before
    assert cache_file(wide, ForPrediction(32, "crop", 32)) != before


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data[:4], lambda data: b"", lambda data: data + data[:8]]
)
def test_a_damaged_file_is_made_anew(wide, damage):
    prepare = ForTraining(32, "crop")
    first = decode_images(wide, prepare, where="disk").pixels.tobytes()
    ((path, _),) = cache_files()
    path.write_bytes(damage(path.read_bytes()))
    assert open_cache_file(path) is None
    assert decode_images(wide, prepare, where="disk").pixels.tobytes() == first
    assert open_cache_file(path) is not None


def test_a_bad_image_stops_it_by_name_and_leaves_nothing_half_written(wide, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no image")
    for where in ("memory", "disk"):
        with pytest.raises(ImageError, match="3.png"):
            decode_images(wide, ForTraining(32, "crop"), where=where)
    assert cache_files() == []
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_more_than_memory_should_take_goes_to_the_disk_by_itself(wide, monkeypatch):
    monkeypatch.setattr(store, "MAX_MEMORY", 100)
    assert decode_images(wide, ForTraining(32, "crop")).where == str(cache_files()[0][0])


def test_where_the_disk_has_no_room_images_are_decoded_each_time_and_a_line_says_so(shapes, tiny, monkeypatch, capsys):
    monkeypatch.setattr(store, "MAX_MEMORY", 100)
    monkeypatch.setattr(store, "SPARE_DISK", 10**18)
    dls = loaders(shapes, tiny)
    assert data.cache_images(dls, tiny.cache) == "none"
    assert "the disk has no room for 18 decoded images" in capsys.readouterr().err
    assert len(passes(dls.train)[0]) == len(dls.train)


def test_a_disk_that_fills_up_meanwhile_means_the_same(wide, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_on_disk", full)
    assert decode_images(wide, ForTraining(32, "crop"), where="disk") is None
    assert "the disk would not take the decoded images (No space left on device)" in capsys.readouterr().err


def test_the_cache_has_a_cap_and_what_was_used_longest_ago_goes_first(wide, monkeypatch):
    import os

    for size in (16, 17, 18):
        decode_images(wide, ForTraining(size, "crop"), where="disk")
    for age, (path, _) in enumerate(cache_files()):
        os.utime(path, (1e9 - 10 * age, 1e9 - 10 * age))
    kept, _, oldest = (path for path, _ in cache_files())
    monkeypatch.setattr(store, "MAX_DISK", sum(size for _, size in cache_files()) + 10)
    assert make_room(20)
    assert not oldest.exists()
    assert kept.exists()
    assert not make_room(10**12)


def test_presizing_keeps_room_for_augmentation(shapes, tiny):
    recipe = replace(tiny, presize=48)
    dls = loaders(shapes, recipe)
    data.cache_images(dls, recipe.cache)
    random.seed(0)
    assert dls.train.size == 48
    assert passes(dls.train)[0][0][0].shape[-2:] == (32, 32)
    assert passes(dls.valid)[0][0][0].shape[-2:] == (32, 32)


def test_evaluation_reads_no_file_again_where_its_images_are_decoded(shapes, tiny, monkeypatch):
    dls = loaders(shapes, tiny)
    learn = model.learner(dls, tiny)
    before = evaluate.evaluate(learn)
    data.cache_images(dls, tiny.cache)
    monkeypatch.setattr("kit.features.compute.prepare_image", lambda *_: pytest.fail("a file was opened"))
    after = evaluate.evaluate(learn)
    assert after.predictions.equals(before.predictions)


def test_a_loader_of_other_items_or_with_other_steps_opens_its_files(shapes, tiny):
    dls = loaders(shapes, tiny)
    data.cache_images(dls, tiny.cache)
    assert dls.valid.new(bs=2).cached
    assert not dls.test_dl(dls.valid_ds.items).cached
    assert not dls.valid.new(after_item=[*dls.valid.after_item.fs, CropPad(8)]).cached


def test_without_random_parts_training_is_the_same_in_every_bit_with_files_decoded_anew(shapes, tiny):
    """Square images and no augmentation: what is left is the order, epoch by epoch, the pixels and the labels."""
    states = []
    for where in ("memory", "none"):
        recipe = replace(tiny, augment=False, epochs=3, cache=where)
        train.seed_everything(recipe.seed)
        learn = model.learner(loaders(shapes, recipe), recipe)
        history = train.fine_tune(learn, recipe)
        assert history.chosen["cache"] == where
        states.append(learn.model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
