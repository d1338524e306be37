"""Read a learner that fastai exported: its classes, image rules and network.

exported = read_export(Path("export.pkl"))       # .learner, .vocab, .recipe, .mean, .std

An export is a pickle: opening it runs the code in it. Only `kit convert --trust-pickle` calls this.
"""

import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from fastai.vision.all import Categorize, CategoryMap, Learner, Normalize, Resize, load_learner
from torch import nn

from kit.errors import ArchitectureError, BundleError
from kit.model.architectures import TORCHVISION, find_architecture
from kit.model.heads import empty_network
from kit.recipe import MOST_PIXELS_A_SIDE, Recipe

AGAIN = "export it again from fastai 2.8 with learn.export()"


@dataclass(frozen=True)
class Exported:
    """A learner from an export, its classes, image rules (`recipe`), normalisation, and names that are `missing`."""

    learner: Learner
    vocab: list[str]
    recipe: Recipe
    mean: tuple[float, ...]
    std: tuple[float, ...]
    missing: list[str]


def open_export(path: Path) -> tuple[Learner, list[str]]:
    """Unpickle an export, which runs the code in it; returns the learner and the names that cannot be imported.

    Such names, like a label function of a notebook, are replaced by `Missing`, which raises only when it is called.
    """
    missing: list[str] = []

    class Lenient(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                missing.append(f"{module}.{name}")
                return type(name, (Missing,), {"__module__": module})

    lenient = ModuleType("lenient")
    lenient.__dict__.update(pickle.__dict__ | {"Unpickler": Lenient, "load": lambda file, **kw: Lenient(file).load()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            learn = load_learner(path, cpu=True, pickle_module=lenient)
        except Exception as error:
            raise BundleError(f"{path} cannot be opened as a fastai export ({error})", fix=AGAIN) from error
    if not isinstance(learn, Learner):
        raise BundleError(f"{path} holds a {type(learn).__name__}, not a Learner", fix=AGAIN)
    return learn, sorted(set(missing))


class Missing:
    """Stands for a function or class of the export that cannot be imported."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `BundleError`."""
        raise BundleError(f"{type(self).__name__} of the export is not here", fix="run where it can be imported")


def read_export(path: Path, names: Sequence[str] | None = None, arch: str | None = None) -> Exported:
    """Open an export and read from it what a bundle needs.

    names: new names of its classes, in their order. arch: its network, where that cannot be detected. Raises
    `BundleError` for anything but a classifier of images with one class each, and for unsupported image transforms.
    """
    learn, missing = open_export(path)
    known = getattr(learn.dls, "vocab", None)
    steps = [type(step) for pipeline in learn.dls.dataset.tls for step in pipeline.tfms.fs]
    if not isinstance(known, CategoryMap) or Categorize not in steps:
        raise BundleError(
            f"{path} does not tell classes apart, one for an image", fix="only such a learner can be converted"
        )
    vocab = [str(name) for name in (names or known)]
    if len(vocab) != len(known) or len(set(vocab)) != len(vocab):
        problem = f"{len(vocab)} names for {len(known)} classes: {', '.join(map(str, known))}"
        raise BundleError(problem, fix="give as many different names, in this order")
    resize = _resize(learn.dls.valid.after_item.fs, path)
    mean, std = _normalisation(learn.dls.valid.after_batch.fs)
    size = _size(learn, resize)
    found = arch or architecture_of(learn.model, len(vocab), size)
    # The largest presize, because fastai never decodes a JPEG at reduced size.
    recipe = Recipe(arch=found, weights="none", size=size, resize=str(resize.method), presize=MOST_PIXELS_A_SIDE)
    return Exported(learn, vocab, recipe, mean, std, missing)


def _resize(transforms: Sequence[Any], path: Path) -> Resize:
    """The Resize among the item transforms; there must be exactly one."""
    found = [transform for transform in transforms if type(transform) is Resize]
    if len(found) != 1:
        problem = f"{path} resizes single images {len(found)} times; a bundle does it once"
        raise BundleError(problem, fix="only learners whose DataBlock has item_tfms=Resize(SIZE) can be converted")
    return found[0]


def _normalisation(transforms: Sequence[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the Normalize among the batch transforms; 0 and 1 where there is none."""
    for transform in transforms:
        if isinstance(transform, Normalize):
            mean, std = (tuple(map(float, values.flatten().tolist())) for values in (transform.mean, transform.std))
            return mean, std
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _size(learn: Learner, resize: Resize) -> int:
    """The size of the network's input: of batches after presizing, else of Resize."""
    sides = {int(side) for side in resize.size}
    for transform in learn.dls.valid.after_batch.fs:
        given = getattr(transform, "size", None)
        if given is not None:
            sides = {int(side) for side in (given if isinstance(given, tuple | list) else (given,))}
    if len(sides) != 1:
        raise BundleError(
            f"images of {' x '.join(map(str, sorted(sides)))} pixels", fix="only squares can be converted"
        )
    return sides.pop()


def architecture_of(model: nn.Module, classes: int, size: int) -> str:
    """The architecture of a learner's model: the one whose tensors have the same names and shapes.

    Raises `BundleError` where there is none.
    """
    named = _timm_name(model)
    for name in [named] if named else TORCHVISION:
        try:
            if _shapes(empty_network(name, classes, size)) == _shapes(model):
                return find_architecture(name).full_name
        except ArchitectureError:
            continue
    problem = f"the network {named or ''} is none that kit knows, or its head is not fastai's own".replace("  ", " ")
    raise BundleError(problem, fix="say which it is: --arch NAME")


def _timm_name(model: nn.Module) -> str | None:
    """The name in the configuration of a timm network, without the tag of its weights; None for other networks."""
    body = getattr(model[0] if isinstance(model, nn.Sequential) else model, "model", None)
    config = getattr(body, "default_cfg", None) or {}
    name = config.get("architecture") if isinstance(config, dict) else getattr(config, "architecture", None)
    return f"timm/{name}" if name else None


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
