"""From a table and a recipe to fastai's DataBlock and DataLoaders.

dls = blocks(Recipe(size=128)).dataloaders(table)       # real fastai objects: dls.show_batch() works
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import (
    DataBlock,
    DataLoaders,
    Datasets,
    IntToFloatTensor,
    L,
    Pipeline,
    Transform,
    TransformBlock,
    WeightedDL,
    aug_transforms,
)
from PIL.Image import Image

from kit import processes
from kit.console import say
from kit.data.cached_dl import CachedDL
from kit.data.listing import OWN_CHART
from kit.data.transforms import Augment, OpenImage, Square
from kit.errors import RecipeError
from kit.fonts import save_figure
from kit.machine import core_count
from kit.recipe import Recipe
from kit.tasks.training import training_of

MAX_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")
BATCHES_AHEAD = 3  # of each process


class BalancedDL(WeightedDL, CachedDL):
    """fastai's WeightedDL with balanced weights: training images are drawn with replacement, all classes equally often.
    A loader that does not shuffle (validation, prediction) returns each image once."""

    def __init__(self, dataset=None, bs=None, wgts=None, **kwargs):
        if wgts is None and kwargs.get("shuffle"):
            wgts = balanced(dataset.items["label"].tolist())
        super().__init__(dataset, bs=bs, wgts=wgts, **kwargs)


def balanced(labels: Sequence[str]) -> list[float]:
    """A weight for each image, with the same sum for each class."""
    counts = Counter(labels)
    return [1 / counts[label] for label in labels]


def blocks(
    recipe: Recipe, *, item_tfms: Sequence | None = None, batch_tfms: Sequence | None = None, **kwargs: Any
) -> DataBlock:
    """A fastai DataBlock for tables of `data.table`: opens images, makes them square, augments; splits by the table.

    item_tfms, batch_tfms: fastai's, instead of the recipe's. Further arguments go to `DataBlock`. `model.learner` adds
    normalisation, which depends on the weights. `recipe.batch`, `device` and `workers` become the defaults of
    `.dataloaders(table)`.
    """
    wanted, training = recipe.read_size, training_of(recipe.task)
    arguments = {
        "blocks": (TransformBlock(type_tfms=OpenImage(wanted), batch_tfms=IntToFloatTensor), training.block()),
        "get_x": image_path,
        "get_y": training.reader(),
        "splitter": split_rows,
        "item_tfms": [Square(recipe.input_size, recipe.resize, recipe.presize)] if item_tfms is None else item_tfms,
        "batch_tfms": batch_transforms(recipe) if batch_tfms is None else batch_tfms,
    }
    block = DataBlock(**(arguments | kwargs))
    where = device(recipe.device)
    block.dls_kwargs |= {"bs": recipe.batch, "num_workers": worker_count(recipe.workers), "device": where}
    block.dls_kwargs["pin_memory"] = where.type == "cuda"  # a GPU copies from such memory at full speed
    block.dls_kwargs["dl_type"] = BalancedDL if recipe.sampler == "balanced" else CachedDL
    return block


def image_path(item):
    """The path of a row of the table, or `item` itself where it is a path, as in `dls.test_dl([path])`.

    Not annotated, because fastai uses annotations to decide where in the pipeline an item starts.
    """
    return item if isinstance(item, str | Path) else item["path"]


def split_rows(table: pd.DataFrame) -> tuple[list[int], list[int]]:
    """The row numbers of the training and of the validation images."""
    splits = table["split"].tolist()
    return tuple([row for row, split in enumerate(splits) if split == side] for side in ("train", "valid"))


def batch_transforms(recipe: Recipe) -> list[Transform]:
    """fastai's batch augmentation for training batches; with presizing it also crops to the recipe's size."""
    size = recipe.input_size if recipe.presize else None
    if recipe.augment:
        return [Augment(aug_transforms(size=size))]
    still = {"do_flip": False, "max_rotate": 0, "max_zoom": 1, "max_lighting": 0, "max_warp": 0}
    return [Augment(aug_transforms(size=size, **still))] if size else []


def worker_count(wanted: int | None) -> int:
    """The number of processes that load images: by default one a core, at most eight; 0 on systems without fork."""
    if wanted is not None:
        return wanted
    return min(core_count(), MAX_WORKERS) if os.name == "posix" and not _is_macos() else 0


def fit_workers(dls: DataLoaders, size: int) -> None:
    """Use fewer processes to load images of `size` pixels where shared memory, which holds their batches, is small."""
    if not SHARED_MEMORY.is_dir():
        return
    room = shutil.disk_usage(SHARED_MEMORY).free // (BATCHES_AHEAD * dls.train.bs * 3 * size**2)
    if (wanted := dls.train.fake_l.num_workers) > room:
        say(f"note: {room} processes load images instead of {wanted}, because {SHARED_MEMORY} has little room")
        for loader in dls.loaders:
            loader.fake_l.num_workers = room


def _is_macos() -> bool:
    return os.uname().sysname == "Darwin"


def device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one, of several processes on a host for each another one.

    Raises `RecipeError` for a device that is not available.
    """
    here = ["cpu"]
    here += (
        ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []
    )
    here += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto" and processes.count() > 1 and torch.cuda.is_available():
        return torch.device("cuda", processes.local_rank() % torch.cuda.device_count())
    if name == "auto":
        return torch.device(here[1] if len(here) > 1 else "cpu")
    if name not in here:
        raise RecipeError(
            f"device {name!r} is not here; this machine has: {', '.join(here)}", fix="choose one, or auto"
        )
    return torch.device(name)


def part(dataset: Datasets, rows: np.ndarray, side: int) -> Datasets:
    """The rows of a dataset for which `rows` (n,) is true, as training (side 0) or validation (side 1) images."""
    items = dataset.items[rows].reset_index(drop=True)
    return Datasets(tls=L(one._new(items, split_idx=side) for one in dataset.tls), n_inp=dataset.n_inp)


def trace_sample(dls: DataLoaders, count: int = 4) -> str:
    """The first training sample after each transform, line by line, from its row of the table to a batch of `count`."""
    images, labels = dls.train_ds.tls
    row = images.items.iloc[0]
    lines = [f"the first training image: {row['path']}"]
    for name, pipeline in (("label", labels.tfms), ("image", images.tfms)):
        lines += _steps(pipeline, row, name)
    sample = dls.train.dataset[0]
    lines += _steps(dls.train.after_item, sample[0], "image")
    some = [dls.train.dataset[index] for index in range(min(count, len(dls.train_ds)))]
    batch = dls.train.create_batch([dls.train.after_item(item) for item in some])
    lines.append(f"  batch  {'collate':<18} {_describe(batch[0])}")
    lines += _steps(dls.train.after_batch, batch[0], "batch")
    return "\n".join(lines)


def _steps(pipeline: Pipeline, value: Any, name: str) -> list[str]:
    """A line for each transform of a pipeline: its name and a description of its result."""
    lines = []
    for step in pipeline.fs:
        value = step(value)
        lines.append(f"  {name}  {step.name.split(' -- ')[0].strip():<18} {_describe(value)}")
    return lines


def _describe(value: Any) -> str:
    if isinstance(value, Image):
        return f"{value.mode}, {value.width} x {value.height} pixels"
    if isinstance(value, torch.Tensor) and value.ndim:
        shape = " x ".join(map(str, value.shape))
        low, high = float(value.min()), float(value.max())
        return f"{str(value.dtype).removeprefix('torch.')}, {shape}, from {low:.3g} to {high:.3g}"
    return f"{value.item():g}" if isinstance(value, torch.Tensor) else str(value)


def show_batch(dls: DataLoaders, path: Path, count: int = 9) -> None:
    """Write the first `count` images of a training batch with their labels to `path`, as a PNG."""
    from matplotlib import pyplot

    dls.train.show_batch(max_n=count)
    save_figure(pyplot.gcf(), path, dpi=100, bbox_inches="tight", format="png", metadata=OWN_CHART)
    pyplot.close()
