"""Item and batch transforms of kit's DataBlock: open an image, make it square, augment a batch.

DataBlock(..., item_tfms=Square(224, "crop"), batch_tfms=Augment(aug_transforms(size=224)))

`Augment` gives fastai's augmentation with the same random numbers, several times faster on a CPU and equal except for
rounding: flip, rotation, zoom and warp of an image are combined to one homography, so that one matrix product gives all
sampling coordinates, and brightness and contrast are computed in place. Any other transform is applied as it is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from fastai.vision.all import AffineCoordTfm, LightingTfm, PILImage, Resize, TensorImage, Transform
from fastai.vision.augment import _WarpCoord, find_coeffs
from torch import Tensor
from torch.nn import functional as F

from kit.data.images import open_image, square

TRAIN, VALID = 0, 1
NEARLY_0_OR_1 = 1e-7


class OpenImage(Transform):
    """Opens a path as an upright RGB `PILImage` by `open_image`. at_least: size in pixels that is needed."""

    def __init__(self, at_least: int):
        super().__init__()
        self.at_least = at_least

    def encodes(self, path: str | Path) -> PILImage:
        """Open `path`; an opened image is returned as it is."""
        return PILImage(open_image(path, self.at_least))


class Square(Transform):
    """Makes images square: training images by fastai's `Resize`, at `presize` pixels with a random crop; others by
    `square`, at `size` pixels, as for prediction."""

    order = 1

    def __init__(self, size: int, how: str, presize: int | None = None):
        super().__init__()
        self.size, self.how, self.presize = size, how, presize
        self.resize = Resize(presize or size, method=how, pad_mode="zeros")

    def __call__(self, item, split_idx=None, **kwargs):
        """Resize an item; it is a training image unless `split_idx` is 1."""
        if split_idx == VALID:
            return super().__call__(item, split_idx=split_idx, **kwargs)
        return self.resize(item, split_idx=TRAIN, **kwargs)

    def encodes(self, image: PILImage) -> PILImage:
        """Resize an image that is not for training."""
        return PILImage(square(image, self.size, self.how))

    def __repr__(self) -> str:
        return f"Square({self.size}, {self.how!r}; training: {self.resize})"


class Augment(Transform):
    """fastai's batch transforms, in their order, applied only to training batches.

    (fastai also resamples validation batches, by an identity map, which only adds rounding errors.)
    """

    order = 30

    def __init__(self, transforms: Sequence[Transform]):
        super().__init__()
        self.transforms = sorted(transforms, key=lambda transform: transform.order)

    def __call__(self, batch, split_idx=None, **kwargs):
        """Apply the transforms to a batch (images, labels) of the training set."""
        if split_idx == VALID:
            return batch
        for transform in self.transforms:
            fast, images = fast_version(transform), batch[0] if isinstance(batch, tuple) else batch
            if fast is None or type(images) is not TensorImage or not images.is_floating_point():
                batch = transform(batch, split_idx=TRAIN, **kwargs)
                continue
            images = TensorImage(fast(transform, images.as_subclass(Tensor)))
            batch = (images, *batch[1:]) if isinstance(batch, tuple) else images
        return batch

    def __repr__(self) -> str:
        return f"Augment({self.transforms})"


def fast_version(transform: Transform) -> Callable[[Transform, Tensor], Tensor] | None:
    """A function of the transform and images (n, 3, h, w) with the same result; None where there is none."""
    if isinstance(transform, LightingTfm):
        return change_lighting
    warps = isinstance(transform, AffineCoordTfm) and all(type(one) is _WarpCoord for one in transform.coord_fs)
    return warp if warps and transform.mode == "bilinear" and transform.align_corners else None


def warp(transform: AffineCoordTfm, images: Tensor) -> Tensor:
    """Images (n, 3, h, w) with the random flips, rotations, zooms and warps of `transform`."""
    transform.before_call(images, TRAIN)
    n, height, width = len(images), *(transform.cp_size or images.shape[-2:])
    last = images.new_tensor([0.0, 0.0, 1.0]).expand(n, 1, 3)
    homography = torch.cat([transform.mat, last], dim=1)
    for coordinate_map in transform.coord_fs:
        # Eight coefficients of a homography whose ninth is 1.
        coefficients = torch.cat(
            [find_coeffs(coordinate_map.orig_pts, coordinate_map.targ_pts), images.new_ones(n, 1, 1)], dim=1
        )
        homography = coefficients.view(n, 3, 3) @ homography
    x, y, scale = (homography @ _pixel_grid(height, width, images)).unbind(1)
    scale.reciprocal_()
    coordinates = torch.stack([x.mul_(scale), y.mul_(scale)], dim=2).view(n, height, width, 2)
    images = _antialias(images, coordinates)
    return F.grid_sample(images, coordinates, "bilinear", transform.pad_mode, align_corners=True)


def _pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Homogeneous coordinates (3, height x width) of all pixels, from -1 to 1."""
    down, across = (torch.linspace(-1, 1, count, dtype=like.dtype, device=like.device) for count in (height, width))
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()])


def _antialias(images: Tensor, coordinates: Tensor) -> Tensor:
    """Images downsized by averaging, where sampling at `coordinates` would skip pixels."""
    ratio = images.shape[-2] / coordinates.shape[2] / 2  # height by width, as in fastai
    if ratio <= 1 or ratio <= 2 / float(coordinates.max() - coordinates.min()):
        return images
    return F.interpolate(images, scale_factor=1 / ratio, mode="area", recompute_scale_factor=True)


def change_lighting(transform: LightingTfm, images: Tensor) -> Tensor:
    """Images (n, 3, h, w) with the random brightness and contrast of `transform`."""
    transform.before_call(images, TRAIN)
    logits = torch.logit(images, NEARLY_0_OR_1)
    for change in transform.fs:
        logits = change(logits)
    return logits.sigmoid_()
