"""A DataLoader of fastai's whose images were decoded before training, so that an epoch only cuts and stacks them.

cache_images(dls)                 # what dls gives is what it gave; show_batch, test_dl and callbacks work as ever

Whole batches are made in this process, without workers, pickles and copies between them. Where a loader has transforms
of its own, or the images fit neither memory nor disk, all stays as it was.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from itertools import islice

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import DataLoaders, IntToFloatTensor, Normalize, TensorImage, TfmdDL, ToTensor
from torch import Tensor

from kit.data.augment import TRAIN, VALID, Augment
from kit.data.decode import DecodedImages, ForPrediction, ForTraining, Preparation, decode_images
from kit.data.transforms import OpenImage, Square


class CachedDL(TfmdDL):
    """fastai's TfmdDL; with `images` (one for each item of the dataset, decoded) it makes its batches of them.

    Where the dataset's split is another than `side`, as in test-time augmentation, it opens the files as ever.
    """

    images: DecodedImages | None = None
    labels: Tensor | None = None
    side, size = TRAIN, 0

    @property
    def cached(self) -> bool:
        """Whether the next pass is made of decoded images."""
        return self.images is not None and getattr(self.dataset, "split_idx", None) == self.side

    def new(self, dataset=None, cls=None, **changes):
        """fastai's; a loader of the same items, as evaluation makes one, keeps their decoded images."""
        loader = super().new(dataset, cls, **changes)
        if self.images is not None and loader.dataset is self.dataset and only_ours(loader):
            loader.images, loader.side, loader.size = self.images, self.side, self.size
        return loader

    def __iter__(self):
        """Batches; of decoded images in this very process."""
        with self.fake_l.no_multiproc() if self.cached else nullcontext():
            yield from super().__iter__()

    def create_batches(self, samps):
        """Batches of the items numbered `samps`: uint8 (n, 3, size, size), with channels last in memory, and labels."""
        if not self.cached:
            yield from super().create_batches(samps)
            return
        numbers = iter(samps)
        # A copy: the order of the next epoch stays what it is without decoded images.
        dice = np.random.default_rng(copy(self.rng).getrandbits(64))
        while len(chunk := list(islice(numbers, self.bs))) == self.bs or (chunk and not self.drop_last):
            yield self._pixels(chunk, dice), self._labels(chunk)

    def _pixels(self, chunk: list[int], dice: np.random.Generator) -> TensorImage:
        batch = np.zeros((len(chunk), self.size, self.size, 3), np.uint8)
        for place, number in enumerate(chunk):
            cut_or_put(self.images[number], batch[place], dice)
        return TensorImage(torch.from_numpy(batch).permute(0, 3, 1, 2))

    def _labels(self, chunk: list[int]) -> Tensor:
        """Labels as fastai's own transforms make them, each once; all together in one tensor, (items, ...)."""
        label = self.dataset.tls[1]
        if self.labels is None:
            self.labels = torch.stack([label[chunk[0]]] * len(self.dataset))
            self.labelled = np.zeros(len(self.dataset), bool)
        for number in chunk:
            if not self.labelled[number]:
                self.labels[number], self.labelled[number] = label[number], True
        return self.labels[chunk]


def cut_or_put(image: np.ndarray, place: np.ndarray, dice: np.random.Generator) -> None:
    """Copy a part of `image` at random to `place`; where the image is smaller, all of it to somewhere in `place`."""
    source, target = [], []
    for have, want in zip(image.shape[:2], place.shape[:2], strict=True):
        at, long = int(dice.integers(abs(have - want) + 1)), min(have, want)
        source.append(slice(at, at + long) if have > want else slice(0, long))
        target.append(slice(at, at + long) if have < want else slice(0, long))
    place[tuple(target)] = image[tuple(source)]


def cache_images(dls: DataLoaders, cache: str = "auto") -> str:
    """Decode the images of `dls` once, where that is possible; returns where they are: "memory", "disk" or "none".

    cache: as in `Recipe.cache`. Loaders with item transforms of the user's own stay as they are.
    """
    if cache == "none":
        return "none"
    found = [_attach(loader, side, cache) for side, loader in zip((TRAIN, VALID), dls.loaders, strict=False)]
    return "none" if "none" in found else "disk" if "disk" in found else "memory"


def _attach(loader: TfmdDL, side: int, cache: str) -> str:
    if not only_ours(loader):
        return "none"
    if loader.images is None:
        items, prepare = loader.dataset.items, preparation(loader, side)
        hashes = items["sha256"].tolist() if "sha256" in items else None
        loader.images = decode_images(items["path"].tolist(), prepare, hashes, cache)
        loader.side, loader.size = side, prepare.size
    return "none" if loader.images is None else "memory" if loader.images.where == "memory" else "disk"


def preparation(loader: TfmdDL, side: int) -> Preparation:
    """How the loader's own transforms prepare the images of a side."""
    opening, square = loader.dataset.tls[0].tfms.fs[-1], loader.after_item.fs[0]
    if side == TRAIN:
        return ForTraining(square.presize or square.size, square.how)
    return ForPrediction(square.size, square.how, opening.at_least)


def only_ours(loader: TfmdDL) -> bool:
    """Whether images of a loader are rows of a table that kit's own item transforms open and make square, no others."""
    if not isinstance(loader, CachedDL) or len(getattr(loader.dataset, "tls", [])) != 2:
        return False
    opening, steps = loader.dataset.tls[0].tfms.fs, [type(step) for step in loader.after_item.fs]
    if not isinstance(loader.dataset.items, pd.DataFrame) or loader.before_batch.fs:
        return False
    return steps == [Square, ToTensor] and len(opening) > 0 and type(opening[-1]) is OpenImage


def batches_are_plain(loader: TfmdDL, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether batch transforms leave validation images as they are, apart from normalisation with this mean and std."""
    for step in loader.after_batch.fs:
        if isinstance(step, Normalize):
            own = (step.mean.flatten().cpu(), step.std.flatten().cpu())
            if not all(torch.allclose(one, torch.tensor(other)) for one, other in zip(own, (mean, std), strict=True)):
                return False
        elif not (isinstance(step, IntToFloatTensor | Augment) or step.split_idx == TRAIN):
            return False
    return True
