"""The DataBlock: real fastai objects that see what a bundle will see."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SHAPES, draw_shape
from fastai.vision.all import DataBlock, DataLoaders, Resize

from kit import data
from kit.data.datablock import batch_transforms, device
from kit.data.images import open_image, square
from kit.errors import RecipeError


@pytest.fixture(scope="module")
def table(shapes):
    return data.table(shapes)


def test_blocks_are_a_fastai_datablock_and_its_loaders_take_the_recipes_defaults(table, tiny):
    block = data.blocks(tiny)
    dls = block.dataloaders(table)
    assert isinstance(block, DataBlock)
    assert isinstance(dls, DataLoaders)
    images, labels = dls.one_batch()
    assert images.shape == (4, 3, 32, 32)
    assert labels.shape == (4,)
    assert list(dls.vocab) == ["circle", "square", "triangle"]
    assert block.dataloaders(table, bs=2).one_batch()[0].shape[0] == 2


def test_train_and_valid_are_the_rows_that_the_table_says(table, tiny):
    dls = data.blocks(tiny).dataloaders(table)
    assert dls.train_ds.items["path"].tolist() == table[table["split"] == "train"]["path"].tolist()
    assert dls.valid_ds.items["path"].tolist() == table[table["split"] == "valid"]["path"].tolist()


@pytest.mark.parametrize("how", ["crop", "pad", "squish"])
@pytest.mark.parametrize("presize", [None, 48])
def test_validation_images_are_prepared_just_as_for_a_prediction(table, tiny, how, presize):
    dls = data.blocks(replace(tiny, resize=how, presize=presize)).dataloaders(table)
    path = dls.valid_ds.items["path"].iloc[0]
    ours = np.asarray(square(open_image(path, at_least=presize or 32), 32, how)).transpose(2, 0, 1)
    seen = dls.valid.one_batch()[0][0]
    assert np.array_equal((seen.cpu().numpy() * 255).round(), ours)


def test_presizing_crops_training_images_to_the_size_in_the_batch(table, tiny):
    dls = data.blocks(replace(tiny, presize=48)).dataloaders(table)
    assert dls.train.one_batch()[0].shape == (4, 3, 32, 32)
    assert dls.train.do_item(0)[0].shape == (3, 48, 48)


def test_without_augmentation_there_are_no_batch_transforms(tiny):
    assert batch_transforms(replace(tiny, augment=False)) == []
    assert len(batch_transforms(tiny)) > 0


def test_fastais_own_transforms_take_the_place_of_the_recipes(table, tiny):
    dls = data.blocks(tiny, item_tfms=[Resize(24)], batch_tfms=[]).dataloaders(table)
    assert dls.train.one_batch()[0].shape == (4, 3, 24, 24)
    assert dls.valid.one_batch()[0].shape[1:] == (3, 24, 24)


def test_a_path_alone_can_be_predicted_through_test_dl(table, tiny):
    dls = data.blocks(tiny).dataloaders(table)
    (images,) = dls.test_dl([table["path"].iloc[0]]).one_batch()
    assert images.shape == (1, 3, 32, 32)


def test_how_a_sample_of_many_sizes_travels_is_told_step_by_step(tiny, tmp_path):
    for number, size in enumerate([(40, 60), (90, 33), (64, 64), (50, 120)] * 6):
        folder = tmp_path / SHAPES[number % 2]
        folder.mkdir(exist_ok=True)
        draw_shape(SHAPES[number % 2], number).resize(size).save(folder / f"{number}.png")
    table = data.table(tmp_path)
    steps = [
        line.split()
        for line in data.trace_sample(data.blocks(replace(tiny, presize=48)).dataloaders(table)).splitlines()
    ]
    told = {words[1]: " ".join(words[2:]) for words in steps[1:]}
    assert told["image_label"] == "circle"
    assert told["Categorize"] == "0"
    assert told["OpenImage"].startswith("RGB, ")
    assert told["Square"] == "RGB, 48 x 48 pixels"
    assert told["ToTensor"].startswith("uint8, 3 x 48 x 48, ")
    assert told["collate"].startswith("uint8, 4 x 3 x 48 x 48, ")
    assert told["IntToFloatTensor"].startswith("float32, 4 x 3 x 48 x 48, from 0")
    assert told["Augment"].startswith("float32, 4 x 3 x 32 x 32, ")


def test_a_batch_is_shown_as_a_picture(table, tiny, tmp_path):
    data.show_batch(data.blocks(tiny).dataloaders(table), tmp_path / "batch.png")
    assert open_image(tmp_path / "batch.png").width > 200


def test_a_device_that_is_not_here_is_refused_with_those_that_are():
    with pytest.raises(RecipeError, match="device 'gpu' is not here; this machine has: cpu"):
        device("gpu")
    assert device("cpu") == torch.device("cpu")
