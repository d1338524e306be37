"""A fastai DataLoader whose images are decoded before training, so that an epoch only crops and stacks them.

cache_images(dls)                 # batches stay the same; show_batch, test_dl and callbacks work as before

Batches are made without workers: on the GPU where the images fit into its memory, else in this process. Loaders with
the user's own transforms, and images that fit neither in memory nor on disk, are not cached.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from itertools import islice

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import DataLoaders, IntToFloatTensor, Normalize, TensorImage, TfmdDL, ToTensor, chunked
from torch import Tensor

from kit import processes
from kit.data.decode import DecodedImages, ForPrediction, ForTraining, Preparation, decode_images
from kit.data.resident_images import ResidentImages, resident_on
from kit.data.transforms import TRAIN, VALID, Augment, OpenImage, Square
from kit.errors import ImageError


class CachedDL(TfmdDL):
    """fastai's TfmdDL that makes batches from decoded `images` (one for each item of the dataset) where they are set.

    resident: the same images in the memory of a GPU, where batches are then made, equal in every bit.
    split: of the dataset for which the images were prepared. With another one, as in test-time augmentation, the files
    are opened as usual. divided: whether each of several processes makes its part of every batch, as during training;
    `bs` is the size of the whole batch.
    """

    images: DecodedImages | None = None
    resident: ResidentImages | None = None
    labels: Tensor | None = None
    skips = divided = False
    split, size = TRAIN, 0

    @property
    def cached(self) -> bool:
        """Whether the next pass uses the decoded images."""
        return self.images is not None and getattr(self.dataset, "split_idx", None) == self.split

    def new(self, dataset=None, cls=None, **changes):
        """As in fastai; a new loader of the same items, as in evaluation, shares the decoded images."""
        loader = super().new(dataset, cls, **changes)
        if self.images is not None and loader.dataset is self.dataset and only_ours(loader):
            loader.images, loader.split, loader.size = self.images, self.split, self.size
            loader.resident = self.resident
        loader.divided = self.divided
        return loader

    def get_idxs(self):
        """As in fastai; while batches are divided, all processes use the order of the first."""
        return processes.first(lambda: list(super(CachedDL, self).get_idxs())) if self.divided else super().get_idxs()

    def take_part(self, other: "CachedDL", numbers: Sequence[int]) -> None:
        """Use the decoded images of another loader, where it has some: those at `numbers` are the items of this one."""
        if other.images is not None:
            self.images, self.split, self.size = other.images.part(numbers), other.split, other.size
            self.resident = other.resident.part(numbers) if other.resident is not None else None

    def do_item(self, s):
        """As in fastai; with `skips`, as during training, None for an image that can no longer be opened."""
        try:
            return super().do_item(s)
        except ImageError:
            if self.skips:
                return None
            raise

    def __iter__(self):
        """Batches; from decoded images without worker processes."""
        with self.fake_l.no_multiproc() if self.cached else nullcontext():
            yield from super().__iter__()

    def create_batches(self, samps):
        """Batches of the items at `samps`: uint8 (n, 3, size, size), channels-last in memory, and labels."""
        if not self.cached:
            yield from self._opened_parts(samps) if self.divided else super().create_batches(samps)
            return
        numbers = iter(samps)
        # A copy, so that the order of the next epoch is the same as without decoded images.
        generator = np.random.default_rng(copy(self.rng).getrandbits(64))
        while len(chunk := list(islice(numbers, self.bs))) == self.bs or (chunk and not self.drop_last):
            part = self._part(chunk)
            yield self._pixels(part, generator), self._labels(part)

    def _part(self, chunk: list[int]) -> list[int]:
        """This process's part of a batch; one image of it where it has fewer images than there are processes."""
        return (chunk[processes.share(len(chunk))] or chunk[:1]) if self.divided else chunk

    def _opened_parts(self, samps):
        """fastai's `create_batches` for parts of batches, so that all processes make the same number of batches."""
        for chunk in chunked(samps, self.bs, self.drop_last):
            items = [item for item in map(self.do_item, self._part(chunk)) if item is not None]
            if not items:
                raise ImageError("no image of a batch can be opened any more", fix="make the images readable again")
            yield self.do_batch(items)

    def _pixels(self, chunk: list[int], generator: np.random.Generator) -> TensorImage:
        if self.resident is not None:
            return TensorImage(self.resident.crops(chunk, self.size, generator).permute(0, 3, 1, 2))
        batch = np.zeros((len(chunk), self.size, self.size, 3), np.uint8)
        for place, number in enumerate(chunk):
            crop_or_pad(self.images[number], batch[place], generator)
        return TensorImage(torch.from_numpy(batch).permute(0, 3, 1, 2))

    def _labels(self, chunk: list[int]) -> Tensor:
        """Labels by fastai's own transforms, computed once for each item and stored in one tensor (items, ...)."""
        label = self.dataset.tls[1]
        if self.labels is None:
            self.labels = torch.stack([label[chunk[0]]] * len(self.dataset))
            self.labelled = np.zeros(len(self.dataset), bool)
        for number in chunk:
            if not self.labelled[number]:
                self.labels[number], self.labelled[number] = label[number], True
        return self.labels[chunk]


def crop_or_pad(image: np.ndarray, target: np.ndarray, generator: np.random.Generator) -> None:
    """Copy a random crop of `image` to `target`; where the image is smaller, all of it to a random position."""
    cropped, filled = [], []
    for have, want in zip(image.shape[:2], target.shape[:2], strict=True):
        at, long = int(generator.integers(abs(have - want) + 1)), min(have, want)
        cropped.append(slice(at, at + long) if have > want else slice(0, long))
        filled.append(slice(at, at + long) if have < want else slice(0, long))
    target[tuple(filled)] = image[tuple(cropped)]


def cache_images(dls: DataLoaders, cache: str = "auto", splits: Sequence[int] = (TRAIN, VALID)) -> str:
    """Decode the images of `dls` once, where that is possible; returns where they are: "memory", "disk" or "none".

    cache: as in `Recipe.cache`. splits: 0 for the training images, 1 for the validation images. Loaders with the user's
    own item transforms are not changed.
    """
    if cache == "none":
        return "none"
    found = [_attach(dls.loaders[split], split, cache) for split in splits if split < len(dls.loaders)]
    return "none" if "none" in found else "disk" if "disk" in found else "memory"


def _attach(loader: TfmdDL, split: int, cache: str) -> str:
    if not only_ours(loader):
        return "none"
    if loader.images is None:
        items, prepare = loader.dataset.items, preparation(loader, split)
        hashes = items["sha256"].tolist() if "sha256" in items else None
        loader.images = decode_images(items["path"].tolist(), prepare, hashes, cache)
        loader.split, loader.size = split, prepare.size
        loader.resident = resident_on(loader.device, loader.images) if loader.images else None
    return "none" if loader.images is None else "memory" if loader.images.where == "memory" else "disk"


@contextmanager
def missing_skipped(dls: DataLoaders) -> Iterator[None]:
    """During the block, leave out images that can no longer be opened, for training to go on without them."""
    loaders = [loader for loader in dls.loaders if isinstance(loader, CachedDL)]
    for loader in loaders:
        loader.skips = True
    try:
        yield
    finally:
        for loader in loaders:
            loader.skips = False


def preparation(loader: TfmdDL, split: int) -> Preparation:
    """The preparation by the loader's own transforms of a split's images."""
    opening, square = loader.dataset.tls[0].tfms.fs[-1], loader.after_item.fs[0]
    if split == TRAIN:
        return ForTraining(square.presize or square.size, square.how)
    return ForPrediction(square.size, square.how, opening.at_least)


def only_ours(loader: TfmdDL) -> bool:
    """Whether a loader's items are rows of a table, and its item transforms are exactly kit's own."""
    if not isinstance(loader, CachedDL) or len(getattr(loader.dataset, "tls", [])) != 2:
        return False
    opening, steps = loader.dataset.tls[0].tfms.fs, [type(step) for step in loader.after_item.fs]
    if not isinstance(loader.dataset.items, pd.DataFrame) or loader.before_batch.fs:
        return False
    return steps == [Square, ToTensor] and len(opening) > 0 and type(opening[-1]) is OpenImage


def batches_are_plain(loader: TfmdDL, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether batch transforms do not change validation images, apart from normalising by this mean and std."""
    for step in loader.after_batch.fs:
        if isinstance(step, Normalize):
            own = (step.mean.flatten().cpu(), step.std.flatten().cpu())
            if not all(torch.allclose(one, torch.tensor(other)) for one, other in zip(own, (mean, std), strict=True)):
                return False
        elif not (isinstance(step, IntToFloatTensor | Augment) or step.split_idx == TRAIN):
            return False
    return True
