"""The quick augmentation draws what fastai's own transforms draw, and makes the same pixels of it."""

import random

import pytest
import torch
from fastai.vision.all import (
    Contrast,
    Dihedral,
    Hue,
    Saturation,
    TensorCategory,
    TensorImage,
    aug_transforms,
    setup_aug_tfms,
)

from kit.data.transforms import TRAIN, VALID, Augment, change_lighting, fast_version, warp


def batch(n: int = 6, height: int = 40, width: int = 40) -> tuple:
    numbers = torch.Generator().manual_seed(3)
    images = torch.rand(n, 3, height // 4, width // 4, generator=numbers)
    images = torch.nn.functional.interpolate(images, (height, width), mode="bilinear")
    return TensorImage(images), TensorCategory(torch.arange(n))


def both(transforms, images) -> tuple:
    """What fastai's transforms make of a batch, and what ours do, of the same random numbers."""
    made = []
    for way in (Augment(transforms), None):
        torch.manual_seed(7)
        random.seed(7)
        result = (images[0].clone(), images[1])
        if way is not None:
            result = way(result, split_idx=TRAIN)
        else:
            for transform in sorted(transforms, key=lambda one: one.order):
                result = transform(result, split_idx=TRAIN)
        made.append((result, torch.rand(1), random.random()))
    return made


@pytest.mark.parametrize(
    "transforms",
    [
        aug_transforms(),
        aug_transforms(size=24),
        aug_transforms(size=16, max_rotate=30, max_zoom=1.5, max_warp=0.25),
        aug_transforms(flip_vert=True, pad_mode="zeros"),
        aug_transforms(do_flip=False, max_warp=0, max_lighting=0),
        aug_transforms(batch=True),
        aug_transforms(do_flip=False, max_rotate=0, max_zoom=1, max_warp=0),
        setup_aug_tfms([Dihedral(), Contrast(), Saturation()]),
        aug_transforms(size=24, min_scale=0.5),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("shape", [(40, 40), (52, 36)])
def test_it_makes_the_pixels_that_fastais_transforms_make_of_the_same_draws(transforms, shape):
    (ours, *after), (theirs, *after_theirs) = both(transforms, batch(6, *shape))
    assert ours[0].shape == theirs[0].shape
    assert (ours[0] - theirs[0]).abs().max() < 2e-5
    assert (theirs[0] - batch(6, *shape)[0]).abs().max() > 0.05 if ours[0].shape[-2:] == shape else True
    assert after == after_theirs


def test_the_default_uses_the_fast_version_throughout():
    assert [fast_version(transform) for transform in aug_transforms(size=24)] == [warp, change_lighting]


def test_another_interpolation_and_unknown_transforms_are_left_to_fastai():
    assert fast_version(aug_transforms(mode="nearest")[0]) is None
    assert fast_version(Hue()) is None


def test_a_downsized_batch_is_averaged_first_as_fastai_does():
    images = (TensorImage(torch.rand(3, 3, 96, 96)), TensorCategory(torch.arange(3)))
    (ours, *_), (theirs, *_) = both(aug_transforms(size=32), images)
    assert (ours[0] - theirs[0]).abs().max() < 2e-5


def test_labels_and_kinds_stay_and_validation_batches_pass_untouched():
    images, labels = batch()
    made = Augment(aug_transforms())((images, labels), split_idx=TRAIN)
    assert type(made[0]) is TensorImage
    assert made[1] is labels
    assert Augment(aug_transforms())((images, labels), split_idx=VALID)[0] is images


def test_images_alone_and_whole_numbers_work_as_in_fastai():
    images, _ = batch()
    assert Augment(aug_transforms())(images, split_idx=TRAIN).shape == images.shape
