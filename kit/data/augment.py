"""fastai's augmentation of a whole batch, the same numbers, several times quicker on a CPU.

Augment(aug_transforms(size=224))           # draws as they do, and differs from them by rounding alone

Flip, rotation, zoom and warp are one homography an image, so that one matrix product gives all coordinates; lighting
makes no copies on its way. Any other transform is applied as it is.
"""

from collections.abc import Callable, Sequence

import torch
from fastai.vision.all import AffineCoordTfm, LightingTfm, TensorImage, Transform
from fastai.vision.augment import _WarpCoord, find_coeffs
from torch import Tensor
from torch.nn import functional as F

TRAIN, VALID = 0, 1
NEARLY_0_OR_1 = 1e-7


class Augment(Transform):
    """fastai's batch transforms, in their order, for training batches alone.

    Left to themselves they also resample every validation batch, through a map that moves nothing but rounds.
    """

    order = 30

    def __init__(self, transforms: Sequence[Transform]):
        super().__init__()
        self.transforms = sorted(transforms, key=lambda transform: transform.order)

    def __call__(self, batch, split_idx=None, **kwargs):
        """Apply them to a batch (images, labels) of the training set."""
        if split_idx == VALID:
            return batch
        for transform in self.transforms:
            quick, images = quick_way(transform), batch[0] if isinstance(batch, tuple) else batch
            if quick is None or type(images) is not TensorImage or not images.is_floating_point():
                batch = transform(batch, split_idx=TRAIN, **kwargs)
                continue
            images = TensorImage(quick(transform, images.as_subclass(Tensor)))
            batch = (images, *batch[1:]) if isinstance(batch, tuple) else images
        return batch

    def __repr__(self) -> str:
        return f"Augment({self.transforms})"


def quick_way(transform: Transform) -> Callable[[Transform, Tensor], Tensor] | None:
    """A function of a transform and images (n, 3, h, w) that does what the transform does; None where there is none."""
    if isinstance(transform, LightingTfm):
        return lit
    warps = isinstance(transform, AffineCoordTfm) and all(type(one) is _WarpCoord for one in transform.coord_fs)
    return moved if warps and transform.mode == "bilinear" and transform.align_corners else None


def moved(transform: AffineCoordTfm, images: Tensor) -> Tensor:
    """Images (n, 3, h, w) after the flips, rotations, zooms and warps that `transform` draws for them."""
    transform.before_call(images, TRAIN)
    n, height, width = len(images), *(transform.cp_size or images.shape[-2:])
    last = images.new_tensor([0.0, 0.0, 1.0]).expand(n, 1, 3)
    homography = torch.cat([transform.mat, last], dim=1)
    for warp in transform.coord_fs:
        # Eight coefficients of a homography whose ninth is 1.
        coefficients = torch.cat([find_coeffs(warp.orig_pts, warp.targ_pts), images.new_ones(n, 1, 1)], dim=1)
        homography = coefficients.view(n, 3, 3) @ homography
    x, y, scale = (homography @ places(height, width, images)).unbind(1)
    scale.reciprocal_()
    coordinates = torch.stack([x.mul_(scale), y.mul_(scale)], dim=2).view(n, height, width, 2)
    images = smoothed(images, coordinates)
    return F.grid_sample(images, coordinates, "bilinear", transform.pad_mode, align_corners=True)


def places(height: int, width: int, like: Tensor) -> Tensor:
    """The homogeneous coordinates (3, height x width) of all pixels, from -1 to 1."""
    down, across = (torch.linspace(-1, 1, count, dtype=like.dtype, device=like.device) for count in (height, width))
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()])


def smoothed(images: Tensor, coordinates: Tensor) -> Tensor:
    """Images averaged to fewer pixels, where sampling at `coordinates` would leave out too many of them."""
    ratio = images.shape[-2] / coordinates.shape[2] / 2  # height to width, as in fastai: nearly always squares
    if ratio <= 1 or ratio <= 2 / float(coordinates.max() - coordinates.min()):
        return images
    return F.interpolate(images, scale_factor=1 / ratio, mode="area", recompute_scale_factor=True)


def lit(transform: LightingTfm, images: Tensor) -> Tensor:
    """Images in the brightness and contrast that `transform` draws for them."""
    transform.before_call(images, TRAIN)
    logits = torch.logit(images, NEARLY_0_OR_1)
    for change in transform.fs:
        logits = change(logits)
    return logits.sigmoid_()
