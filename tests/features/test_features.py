"""Features: each image goes through the body once, and what is kept is never stale."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from kit import data, model
from kit.errors import ImageError
from kit.features import Store, fingerprint
from kit.features import compute as module
from kit.features import store as store_module
from kit.model.build import features_of
from kit.model.heads import featurizer


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def learn(shapes, quick, tmp_path):
    table = data.table(shutil.copytree(shapes, tmp_path / "images"))
    return model.learner(data.blocks(quick).dataloaders(table), quick)


def counted(monkeypatch) -> list[str]:
    """The paths of images that are prepared from now on."""
    seen, own = [], module.prepare_image
    monkeypatch.setattr(module, "prepare_image", lambda path, rules: seen.append(path) or own(path, rules))
    return seen


def test_they_are_what_the_head_is_given_of_the_images_as_a_bundle_prepares_them(learn, cache):
    features = features_of(learn, learn.dls.valid_ds.items)
    images, _ = learn.dls.valid.new(bs=6).one_batch()
    with torch.no_grad():
        expected = featurizer(learn.model.eval())(images.as_subclass(torch.Tensor))
    assert features.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(features), expected, atol=1e-5, rtol=1e-4)


def test_each_image_goes_through_the_body_once_whatever_the_split(learn, cache, monkeypatch):
    seen = counted(monkeypatch)
    first = features_of(learn, learn.dls.train_ds.items, create=True)
    assert len(seen) == 18
    again = features_of(learn, learn.dls.train_ds.items.iloc[::-1])
    assert len(seen) == 18
    np.testing.assert_array_equal(first, again[::-1])
    features_of(learn, learn.dls.valid_ds.items)
    assert len(seen) == 24


def test_batches_of_any_size_and_decoded_images_give_the_same_features(learn, cache, monkeypatch):
    rows, body, rules = learn.dls.train_ds.items, featurizer(learn.model), learn.spec.image_rules()
    paths, hashes = rows["path"].tolist(), rows["sha256"].tolist()
    whole = features_of(learn, rows)
    totals = []
    monkeypatch.setattr(module, "BATCH", 5)
    monkeypatch.setattr(module, "progress", lambda batches, name, total: totals.append(total) or batches)
    np.testing.assert_allclose(features_of(learn, rows), whole, atol=1e-5)
    assert totals == [4]
    pixels = np.stack([module.prepare_image(path, rules) for path in paths])
    seen = counted(monkeypatch)
    decoded = module.compute_features(body, paths, hashes, rules, torch.device("cpu"), pixels=pixels)
    np.testing.assert_allclose(decoded, whole, atol=1e-5)
    assert seen == []


def test_features_in_bf16_are_nearly_the_same_and_never_stored(learn, cache):
    rows = learn.dls.valid_ds.items
    exact, quick = (features_of(learn, rows, precision=precision) for precision in ("fp32", "bf16"))
    assert quick.dtype == np.float32 and 0 < np.abs(quick - exact).max() < 0.05 * np.abs(exact).max()
    np.testing.assert_array_equal(features_of(learn, rows, create=True, precision="bf16"), quick)
    assert not cache.exists()


def test_an_image_whose_features_are_known_may_be_gone_and_is_not_opened_without_create(learn, cache):
    rows = learn.dls.train_ds.items
    first = features_of(learn, rows, create=True)
    Path(rows["path"].iloc[3]).unlink()
    np.testing.assert_array_equal(features_of(learn, rows, create=True), first)
    shutil.copy(rows["path"].iloc[4], rows["path"].iloc[3])
    np.testing.assert_array_equal(features_of(learn, rows), first)


def test_a_body_that_the_cache_does_not_know_leaves_nothing_in_it_unless_told(learn, cache):
    features_of(learn, learn.dls.valid_ds.items)
    assert not cache.exists()


def test_other_weights_another_size_and_another_way_of_resizing_are_other_features(learn, quick, cache):
    rules = {"size": 32, "resize": "crop", "at_least": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    body = featurizer(learn.model)
    changes = ({}, {"size": 48}, {"resize": "pad"}, {"mean": [0.4] * 3})
    folders = [module.store_of(body, rules | change).folder for change in changes]
    with torch.no_grad():
        next(body.parameters()).add_(1e-3)
    folders.append(module.store_of(body, rules).folder)
    assert len(set(folders)) == 5


def test_an_image_that_changed_since_the_look_is_an_error_that_names_it_though_its_features_are_known(learn, cache):
    rows = learn.dls.train_ds.items
    features_of(learn, rows, create=True)
    changed = rows["path"].iloc[3]
    shutil.copy(rows["path"].iloc[4], changed)
    with pytest.raises(ImageError, match=f"{changed} changed since it was scanned"):
        features_of(learn, rows, create=True)


def test_an_image_that_vanished_is_an_error_that_names_it(learn, cache):
    rows = learn.dls.train_ds.items
    Path(rows["path"].iloc[3]).unlink()
    with pytest.raises(ImageError, match=r"can no longer be read \(No such file"):
        features_of(learn, rows)


@pytest.mark.parametrize("place", ["pathlib.Path.write_bytes", "pathlib.Path.mkdir"])
def test_a_full_or_read_only_cache_falls_back_to_memory_with_a_line(learn, cache, monkeypatch, capsys, place):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    rows = learn.dls.train_ds.items
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        first = features_of(learn, rows, create=True)
    said = capsys.readouterr().err
    assert "note: the cache cannot be written" in said
    assert "No space left on device" in said
    seen = counted(monkeypatch)
    np.testing.assert_array_equal(features_of(learn, rows), first)
    assert len(seen) == 0


def test_a_damaged_file_of_the_cache_is_removed_and_computed_again(learn, cache, monkeypatch):
    rows = learn.dls.train_ds.items
    first = features_of(learn, rows, create=True)
    (file,) = cache.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    seen = counted(monkeypatch)
    np.testing.assert_array_equal(features_of(learn, rows), first)
    assert len(seen) == 18


def test_a_store_is_found_by_the_values_of_its_key_and_every_addition_is_one_more_file(cache):
    store = Store({"a": 1, "b": 2})
    assert not store.exists() and store.read() == {}
    store.add({})
    assert not store.exists()
    for number in range(2):
        store.add({f"{number:064x}": np.full(3, number, np.float32)})
    again = Store({"b": 2, "a": 1})
    assert again.folder == store.folder != Store({"a": 1, "b": 3}).folder
    assert again.exists() and len(list(store.folder.iterdir())) == 2
    assert {name: row.tolist() for name, row in again.read().items()} == {f"{n:064x}": [n] * 3 for n in range(2)}


@pytest.mark.parametrize("content", [{"features": [[1.0]]}, {"hashes": [[0] * 31], "features": [[1.0]]}, {}], ids=str)
def test_a_file_of_features_that_are_not_those_written_is_removed(cache, content):
    store = Store({"a": 1})
    store.add({"00" * 32: np.ones(1, np.float32)})
    wrong, nan = store.folder / "wrong.safetensors", store.folder / "nan.safetensors"
    wrong.write_bytes(safetensors.numpy.save({name: np.array(value, np.float32) for name, value in content.items()}))
    hashes = np.ones((1, 32), np.uint8)
    nan.write_bytes(safetensors.numpy.save({"hashes": hashes, "features": np.full((1, 1), np.nan, np.float32)}))
    assert list(store.read()) == ["00" * 32]
    assert not wrong.exists() and not nan.exists()


def test_a_damaged_or_missing_file_beside_the_features_is_none(cache):
    store = Store({"a": 1})
    assert store.read_file("map") is None
    store.add_file("map", b"what it holds")
    assert store.read_file("map") == b"what it holds"
    (store.folder / "map").write_bytes((store.folder / "map").read_bytes()[:-1])
    assert store.read_file("map") is None


def test_the_store_that_is_written_to_is_never_removed_and_all_are_listed_with_their_sizes(cache, monkeypatch):
    assert store_module.stores() == []
    for number in (1, 2):
        store = Store({"number": number})
        store.add_file("file", b"-" * 968)  # and 32 of its SHA-256
        os.utime(store.folder, (number, number))
    first, second = (Store({"number": number}).folder for number in (1, 2))
    assert store_module.stores() == [(second, 1000), (first, 1000)]
    monkeypatch.setattr(store_module, "MAX_BYTES", 2000)
    store_module.make_room(0, keep=first)
    assert first.is_dir() and second.is_dir()
    store_module.make_room(1000, keep=first)
    assert first.is_dir() and not second.exists()
    monkeypatch.setattr(store_module, "stores", lambda: [(second, 5000)])  # removed by another process meanwhile
    store_module.make_room(0, keep=first)


def test_the_docstring_names_the_size_of_the_cache():
    assert f"fit into {store_module.MAX_BYTES / 1e9:g} GB" in store_module.make_room.__doc__


def test_what_was_used_longest_ago_makes_room(cache, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_BYTES", 3000)
    for number in range(3):
        store = Store({"number": number})
        store.add({f"{number:064x}": np.zeros(250, np.float32)})
        os.utime(store.folder, (number, number))
    assert [Store({"number": number}).folder.is_dir() for number in range(3)] == [False, True, True]


def test_the_body_stays_as_it_was(learn, cache):
    learn.model.train()
    before = fingerprint(learn.model)
    features_of(learn, learn.dls.valid_ds.items)
    assert fingerprint(learn.model) == before
    assert all(part.training for part in learn.model.modules())
    assert all(parameter.is_contiguous() for parameter in learn.model.parameters())


def test_a_fingerprint_is_of_structure_names_and_values():
    def named(name, value=1.0):
        module = torch.nn.Module()
        module.register_parameter(name, torch.nn.Parameter(torch.tensor([value])))
        return fingerprint(module)

    assert named("weight") == named("weight")
    assert len({named("weight"), named("bias"), named("weight", 2.0), fingerprint(torch.nn.Linear(1, 1))}) == 4


@pytest.mark.slow
def test_a_network_without_feature_maps_gives_its_pooled_features(shapes, quick, cache):
    recipe = replace(quick, arch="vit_tiny_patch16_224", weights="none", layers="whole", size=224)
    learn = model.learner(data.blocks(recipe).dataloaders(data.table(shapes)), recipe, head="linear")
    assert features_of(learn, learn.dls.valid_ds.items).shape == (6, 192)
