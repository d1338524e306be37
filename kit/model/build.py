"""From DataLoaders and a recipe to a fastai Learner: body, pretrained weights, new head, normalisation, splitter.

learn = learner(dls, Recipe(arch="resnet34", weights="none"))       # a plain fastai Learner
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import Adam, DataLoaders, Learner, Normalize, TfmdDL

from kit.data.resident import batches_are_plain, only_ours
from kit.errors import ArchitectureError, DataError, RecipeError
from kit.features.compute import compute_features
from kit.model.architectures import Architecture, build_network, cut_body, splitter
from kit.model.choice import choose_architecture
from kit.model.heads import FASTAI, LINEAR, Range, featurizer, range_of, with_head
from kit.model.objectives import loss_of, metrics_of
from kit.model.weights import Start, load_weights
from kit.recipe import Recipe
from kit.task import REGRESSION


@dataclass(frozen=True)
class Origin:
    """What a learner was made of, which a bundle must tell: it hangs on the learner as `learn.origin`.

    architecture: the network that was built, also where the recipe says "auto".
    limits: the range of regression's answers. head: "linear", learned from features, or "fastai".
    """

    recipe: Recipe
    architecture: Architecture
    start: Start
    limits: Range | None = None
    head: str = FASTAI


def learner(
    dls: DataLoaders,
    recipe: Recipe,
    *,
    loss_func: Callable | None = None,
    opt_func: Callable = Adam,
    splitter: Callable | None = None,
    metrics: Sequence[Callable] | None = None,
    cbs: Sequence | None = None,
    head: str | None = None,
    **kwargs: Any,
) -> Learner:
    """A fastai Learner over `dls` with the recipe's network, its pretrained body and a new head.

    head: "linear" or "fastai", by default what `recipe.layers` needs. All other arguments are fastai's own and go to
    `Learner`. The weights' own normalisation joins the batch transforms of `dls` unless one is there. `learn.origin`
    keeps the recipe and where the weights came from.
    """
    architecture = choose_architecture(recipe.arch, recipe.weights)
    network = build_network(architecture)
    body = cut_body(network, architecture, recipe.size)
    start = load_weights(network, body.module, architecture, recipe.weights)
    normalise(dls, start)
    limits = range_of(recipe, dls.train_ds.items["label"]) if recipe.task == REGRESSION else None
    head = head or head_for(dls, recipe, start, loss_func)
    if head == FASTAI and not len(dls.train):
        problem = f"{len(dls.train_ds)} training images do not fill one batch of {dls.train.bs}"
        raise DataError(problem, fix=f"--batch {max(2, len(dls.train_ds) // 4)}, or more images")
    learn = Learner(
        dls,
        with_head(body, len(dls.vocab), limits, head),
        loss_func=loss_func or loss_of(recipe.task, limits),
        opt_func=opt_func,
        splitter=splitter or _default_splitter(architecture),
        metrics=metrics_of(recipe.task, len(dls.vocab)) if metrics is None else list(metrics),
        cbs=cbs,
        **kwargs,
    )
    learn.origin = Origin(recipe, architecture, start, limits, head)
    return learn


_default_splitter = splitter


def normalise(dls: DataLoaders, start: Start) -> None:
    """Add the normalisation that the weights expect to the batch transforms, unless there is one."""
    if not any(isinstance(transform, Normalize) for transform in dls.train.after_batch.fs):
        dls.add_tfms([Normalize.from_stats(start.mean, start.std, cuda=False)], "after_batch")
        dls.to(dls.device)


def head_for(dls: DataLoaders, recipe: Recipe, start: Start, loss_func: Callable | None = None) -> str:
    """The kind of head that a recipe's `layers` needs: linear where it is learned from features, else fastai's.

    A random start has no features worth learning from, a loss of the user's own is not that of a logistic regression,
    and features are those of images as kit prepares them: `auto` otherwise trains all layers, as `whole` does, and
    `head` raises `RecipeError`.
    """
    reason = None
    if not start.pretrained:
        reason = "a random start has learned no features"
    elif loss_func is not None:
        reason = "a head learned from features has a loss of its own, not loss_func"
    elif not prepared_by_kit(dls.valid, start):
        reason = "the images are prepared by transforms that kit does not know"
    if recipe.layers == "head" and reason:
        raise RecipeError(
            f"layers='head', but {reason}", fix="--layers whole, or pretrained weights and kit's own loss"
        )
    return FASTAI if reason or recipe.layers == "whole" else LINEAR


def prepared_by_kit(loader: TfmdDL, start: Start) -> bool:
    """Whether a loader prepares its images as a bundle does, so that their features can be computed without it."""
    return only_ours(loader) and "sha256" in loader.items and batches_are_plain(loader, start.mean, start.std)


def origin_of(learn: Learner) -> Origin:
    """What a learner was made of; `ArchitectureError` where it was not made here."""
    if not hasattr(learn, "origin"):
        problem = "this Learner was not made by kit.model.learner, so that a bundle could not tell what it is"
        raise ArchitectureError(
            problem, fix="make it with kit.model.learner(dls, recipe); fastai's arguments pass through"
        )
    return learn.origin


def image_rules(origin: Origin) -> dict[str, Any]:
    """How a bundle prepares images: the part `image` of its config."""
    recipe, start = origin.recipe, origin.start
    rules = {"size": recipe.size, "resize": recipe.resize, "at_least": max(recipe.size, recipe.presize or 0)}
    return rules | {"mean": list(start.mean), "std": list(start.std)}


def features_of(learn: Learner, rows: pd.DataFrame, *, create: bool = False, precision: str = "fp32") -> np.ndarray:
    """Features (n, f), float32, of rows of a table (path and sha256), by the body of `learn` as it is.

    create, precision: as in `compute_features`. Images that the validation loader has decoded are not opened again.
    Raises `ImageError` for an image that is gone, or was changed since it was looked at.
    """
    body, rules, device = featurizer(learn.model), image_rules(origin_of(learn)), torch.device(learn.dls.device)
    pixels = None
    if rows is learn.dls.valid.items and getattr(learn.dls.valid, "images", None) is not None:
        pixels = learn.dls.valid.images
    paths, hashes = rows["path"].tolist(), rows["sha256"].tolist()
    return compute_features(body, paths, hashes, rules, device, create=create, precision=precision, pixels=pixels)
