"""A DataLoader of fastai's whose images were decoded before training, so that an epoch only cuts and stacks them.

make_resident(dls, recipe)         # what dls gives is what it gave; show_batch, test_dl and callbacks work as ever

Whole batches are made in this process, without workers, pickles and copies between them. Where a loader has transforms
of its own, or the images fit neither memory nor disk, all stays as it was.
"""

from contextlib import nullcontext
from copy import copy
from itertools import islice

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import DataLoaders, TensorImage, TfmdDL
from torch import Tensor

from kit.data.augment import TRAIN, VALID
from kit.data.decoded import Decoded, ForPrediction, ForTraining, Preparation, decoded
from kit.recipe import Recipe


class ResidentDL(TfmdDL):
    """fastai's TfmdDL; with `images` (one for each item of the dataset, decoded) it makes its batches of them.

    Where the dataset's split is another than `side`, as in test-time augmentation, it opens the files as ever.
    """

    images: Decoded | None = None
    labels: Tensor | None = None
    side, size = TRAIN, 0

    @property
    def resident(self) -> bool:
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
        with self.fake_l.no_multiproc() if self.resident else nullcontext():
            yield from super().__iter__()

    def create_batches(self, samps):
        """Batches of the items numbered `samps`: uint8 (n, 3, size, size), with channels last in memory, and labels."""
        if not self.resident:
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


def make_resident(dls: DataLoaders, recipe: Recipe) -> str:
    """Decode what `dls` trains and validates on, where that can be; returns where: "memory", "disk" or "none"."""
    if recipe.cache == "none":
        return "none"
    found = [_attach(loader, side, recipe) for side, loader in zip((TRAIN, VALID), dls.loaders, strict=False)]
    return "none" if "none" in found else "disk" if "disk" in found else "memory"


def _attach(loader: TfmdDL, side: int, recipe: Recipe) -> str:
    if not only_ours(loader):
        return "none"
    if loader.images is None:
        items, prepare = loader.dataset.items, preparation(recipe, side)
        hashes = items["sha256"].tolist() if "sha256" in items else None
        loader.images = decoded(items["path"].tolist(), prepare, hashes, recipe.cache)
        loader.side, loader.size = side, prepare.size
    return "none" if loader.images is None else "memory" if loader.images.where == "memory" else "disk"


def preparation(recipe: Recipe, side: int) -> Preparation:
    """How the images of a side are decoded."""
    if side == TRAIN:
        return ForTraining(recipe.presize or recipe.size, recipe.resize)
    return ForPrediction(recipe.size, recipe.resize, max(recipe.size, recipe.presize or 0))


def only_ours(loader: TfmdDL) -> bool:
    """Whether a loader's items are rows of a table that nothing but the blocks of kit open, square and label."""
    if not isinstance(loader, ResidentDL):
        return False
    items, steps = getattr(loader.dataset, "items", None), [type(step).__name__ for step in loader.after_item.fs]
    if not isinstance(items, pd.DataFrame) or len(getattr(loader.dataset, "tls", [])) != 2:
        return False
    opening = [type(step).__name__ for step in loader.dataset.tls[0].tfms.fs]
    return steps == ["Square", "ToTensor"] and opening[-1:] == ["OpenImage"] and not loader.before_batch.fs
