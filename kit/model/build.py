"""From DataLoaders and a recipe to a fastai Learner: body, pretrained weights, new head, normalisation, splitter.

learn = learner(dls, Recipe(arch="resnet34", weights="none"))       # a plain fastai Learner
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastai.vision.all import Adam, DataLoaders, Learner, Normalize

from kit.errors import ArchitectureError, DataError
from kit.model.architectures import Architecture, build_network, cut_body, find_architecture, splitter
from kit.model.heads import Range, range_of, with_head
from kit.model.objectives import loss_of, metrics_of
from kit.model.weights import Start, load_weights
from kit.recipe import Recipe
from kit.task import REGRESSION


@dataclass(frozen=True)
class Origin:
    """What a learner was made of, which a bundle must tell: it hangs on the learner as `learn.origin`.

    limits: the range of regression's answers.
    """

    recipe: Recipe
    architecture: Architecture
    start: Start
    limits: Range | None = None


def learner(
    dls: DataLoaders,
    recipe: Recipe,
    *,
    loss_func: Callable | None = None,
    opt_func: Callable = Adam,
    splitter: Callable | None = None,
    metrics: Sequence[Callable] | None = None,
    cbs: Sequence | None = None,
    **kwargs: Any,
) -> Learner:
    """A fastai Learner over `dls` with the recipe's network, its pretrained body and a new head.

    All arguments beyond the recipe are fastai's own and go to `Learner`. The weights' own normalisation joins the
    batch transforms of `dls` unless one is there. `learn.origin` keeps the recipe and where the weights came from.
    """
    if not len(dls.train):
        problem = f"{len(dls.train_ds)} training images do not fill one batch of {dls.train.bs}"
        raise DataError(problem, fix=f"--batch {max(2, len(dls.train_ds) // 4)}, or more images")
    architecture = find_architecture(recipe.arch)
    network = build_network(architecture)
    body = cut_body(network, architecture, recipe.size)
    start = load_weights(network, body.module, architecture, recipe.weights)
    if not any(isinstance(transform, Normalize) for transform in dls.train.after_batch.fs):
        dls.add_tfms([Normalize.from_stats(start.mean, start.std, cuda=False)], "after_batch")
        dls.to(dls.device)
    limits = range_of(recipe, dls.train_ds.items["label"]) if recipe.task == REGRESSION else None
    learn = Learner(
        dls,
        with_head(body, len(dls.vocab), limits),
        loss_func=loss_func or loss_of(recipe.task, limits),
        opt_func=opt_func,
        splitter=splitter or _default_splitter(architecture),
        metrics=metrics_of(recipe.task, len(dls.vocab)) if metrics is None else list(metrics),
        cbs=cbs,
        **kwargs,
    )
    learn.origin = Origin(recipe, architecture, start, limits)
    return learn


_default_splitter = splitter


def origin_of(learn: Learner) -> Origin:
    """What a learner was made of; `ArchitectureError` where it was not made here."""
    if not hasattr(learn, "origin"):
        problem = "this Learner was not made by kit.model.learner, so that a bundle could not tell what it is"
        raise ArchitectureError(
            problem, fix="make it with kit.model.learner(dls, recipe); fastai's arguments pass through"
        )
    return learn.origin
