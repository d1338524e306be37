"""From DataLoaders and a recipe to a fastai Learner: network, pretrained weights, new head, normalisation, splitter.

learn = learner(dls, Recipe(arch="resnet34", weights="none"))       # a plain fastai Learner; see also learn.spec
choose_architecture("auto", "imagenet").name     # resnet18, or tf_efficientnet_lite0 offline
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import DataLoaders, Learner, Normalize, TfmdDL
from torch import nn

from kit.console import say
from kit.data.cached_dl import batches_are_plain, only_ours
from kit.errors import ArchitectureError, DataError, FetchError, OutputError, RecipeError
from kit.features.compute import compute_features
from kit.manifest import find_bundle, read_config
from kit.model import hub
from kit.model.adam import Adam
from kit.model.architectures import AUTO, Architecture, build_network, cut_body, find_architecture, splitter
from kit.model.heads import FASTAI, LINEAR, Head, Range, featurizer, range_of, with_head
from kit.model.weight_paths import LITE0, find_path
from kit.model.weights import WeightsSource, load_weights, torchvision_file
from kit.recipe import Recipe
from kit.tasks.training import training_of

DEFAULT = "resnet18"


def choose_architecture(arch: str, weights: str) -> Architecture:
    """The architecture of a recipe's `arch` and `weights`.

    "auto" with "imagenet" is resnet18 where its ImageNet weights are on this machine or can be downloaded, else
    EfficientNet-Lite0, whose weights an installed package has; a printed line says which, and why. With a bundle, a run
    or a hub ID it is the network that their config names; else resnet18. Raises `KitError` for an unreadable config.
    """
    if arch != AUTO:
        return find_architecture(arch)
    if weights == "imagenet":
        return _with_imagenet()
    return find_architecture(_named_by(weights) or DEFAULT)


def _with_imagenet() -> Architecture:
    usual = find_architecture(DEFAULT)
    try:
        path = torchvision_file(usual)
    except (FetchError, OutputError) as error:
        if LITE0.path is None:
            return usual  # load_weights then falls back to the bundled weights and prints a note
        reason = " ".join(error.problem.split())
        say(f"network: {LITE0.arch}, whose ImageNet weights are installed; {DEFAULT}'s are not available: {reason}")
        return find_architecture(LITE0.arch)
    say(f"network: {DEFAULT}, because its ImageNet weights are here: {path}")
    return usual


def _named_by(weights: str) -> str | None:
    """The network that the config of a bundle or of a hub repository names; None for other weights."""
    if weights in ("bundled", "none"):
        return None
    if weights.startswith(hub.PREFIXES):
        found = hub.read(weights)
        return found.config["architecture"]["name"] if found.is_bundle else hub.timm_config(found).architecture
    path = find_path(weights)
    return read_config(find_bundle(path))["architecture"]["name"] if path.is_dir() else None


@dataclass(frozen=True)
class ModelSpec:
    """What a learner was made of: the only attribute that kit adds to a Learner, as `learn.spec`.

    recipe: the one that the learner was made or last trained with. architecture: the network that was built, also where
    the recipe says "auto". weights: what the body started from. output_range: of regression, the range of the answers.
    head: "linear" (can be trained from features), "fastai", or a list of layers (`with_head`). image: further image
    rules, of a converted learner.
    """

    recipe: Recipe
    architecture: Architecture
    weights: WeightsSource
    output_range: Range | None = None
    head: Head = FASTAI
    image: Mapping[str, Any] = field(default_factory=dict)

    def image_rules(self) -> dict[str, Any]:
        """How a bundle prepares images, as the part `image` of its config.json."""
        recipe, weights = self.recipe, self.weights
        rules = {"size": recipe.input_size, "resize": recipe.resize, "at_least": recipe.read_size}
        return rules | {"mean": list(weights.mean), "std": list(weights.std)} | self.image


def learner(
    dls: DataLoaders,
    recipe: Recipe,
    *,
    loss_func: Callable | None = None,
    opt_func: Callable = Adam,
    splitter: Callable | None = None,
    metrics: Sequence[Callable] | None = None,
    cbs: Sequence | None = None,
    head: Head | None = None,
    **kwargs: Any,
) -> Learner:
    """A fastai Learner over `dls` with the recipe's network, its pretrained body and a new head.

    head: "linear" or "fastai"; by default the one that `recipe.layers` needs. All other arguments are fastai's own and
    go to `Learner`. The normalisation that the weights expect is added to the batch transforms of `dls`, unless they
    normalise already. `learn.spec` holds the recipe and where the weights came from (`ModelSpec`).
    """
    architecture = choose_architecture(recipe.arch, recipe.weights)
    network = build_network(architecture)
    body = cut_body(network, architecture, recipe.input_size)
    weights = load_weights(network, body.module, architecture, recipe.weights)
    if recipe.size is None and weights.size not in (None, recipe.input_size):
        suits = f"images of {weights.size} pixels a side suit {weights.origin}; these have {recipe.input_size}"
        say(f"note: {suits}\n  Fix: --size {weights.size}")
    if not any(isinstance(transform, Normalize) for transform in dls.train.after_batch.fs):
        dls.add_tfms([Normalize.from_stats(weights.mean, weights.std, cuda=False)], "after_batch")
        dls.to(dls.device)
    training, output_range = training_of(recipe.task), range_of(recipe, dls.train_ds.items["label"])
    head = head or head_for(dls, recipe, weights, loss_func)
    if head == FASTAI and not len(dls.train):
        problem = f"{len(dls.train_ds)} training images do not fill one batch of {dls.train.bs}"
        raise DataError(problem, fix=f"--batch {max(2, len(dls.train_ds) // 4)}, or more images")
    learn = Learner(
        dls,
        with_head(body, len(dls.vocab), output_range, head),
        loss_func=loss_func or training.loss(output_range),
        opt_func=opt_func,
        splitter=splitter or _default_splitter(architecture),
        metrics=training.metrics(len(dls.vocab)) if metrics is None else list(metrics),
        cbs=cbs,
        **kwargs,
    )
    learn.spec = ModelSpec(recipe, architecture, weights, output_range, head)
    return learn


_default_splitter = splitter


def feature_body(recipe: Recipe) -> tuple[nn.Module, dict[str, Any]]:
    """The pretrained body of a recipe, images to features (n, f), and the rules by which it prepares images.

    The same body and rules as of a Learner with a linear head, so that both find the same features in the cache.
    """
    architecture = choose_architecture(recipe.arch, recipe.weights)
    network = build_network(architecture)
    body = cut_body(network, architecture, recipe.input_size)
    weights = load_weights(network, body.module, architecture, recipe.weights)
    spec = ModelSpec(recipe, architecture, weights, head=LINEAR)
    return featurizer(with_head(body, 1, None, LINEAR)), spec.image_rules()


def head_for(dls: DataLoaders, recipe: Recipe, weights: WeightsSource, loss_func: Callable | None = None) -> str:
    """The kind of head that a recipe's `layers` needs: "linear" where it is trained from features, else "fastai".

    A head cannot be trained from features where the body is random, where the user gives another loss, or where the
    images are not prepared by kit: `auto` and `all` then train all layers, as `whole` does, and `head` raises
    `RecipeError`.
    """
    reason = None
    if not weights.pretrained:
        reason = "a random start has learned no features"
    elif loss_func is not None:
        reason = "a head learned from features has a loss of its own, not loss_func"
    elif not prepared_by_kit(dls.valid, weights):
        reason = "the images are prepared by transforms that kit does not know"
    if recipe.layers == "head" and reason:
        fix = "--layers whole, or pretrained weights and kit's own loss"
        raise RecipeError(f"layers='head', but {reason}", fix=fix)
    return FASTAI if reason or recipe.layers == "whole" else LINEAR


def prepared_by_kit(loader: TfmdDL, weights: WeightsSource) -> bool:
    """Whether a loader prepares its images as a bundle does, so that features can be computed from the files alone."""
    return only_ours(loader) and "sha256" in loader.items and batches_are_plain(loader, weights.mean, weights.std)


def spec_of(learn: Learner) -> ModelSpec:
    """`learn.spec`; `ArchitectureError` for a Learner that was not made by `kit.model.learner`."""
    if not hasattr(learn, "spec"):
        problem = "this Learner was not made by kit.model.learner, so a bundle could not describe it"
        fix = "make it with kit.model.learner(dls, recipe); fastai's arguments pass through"
        raise ArchitectureError(problem, fix=fix)
    return learn.spec


def features_of(learn: Learner, rows: pd.DataFrame, *, create: bool = False, precision: str = "fp32") -> np.ndarray:
    """Features (n, f), float32, of rows of a table (path and sha256), by the body of `learn` as it is now.

    create, precision: as in `compute_features`. Images that the validation loader has decoded are not opened again.
    Raises `ImageError` for an image that is missing, or that changed since it was scanned.
    """
    body, rules, device = featurizer(learn.model), spec_of(learn).image_rules(), torch.device(learn.dls.device)
    pixels = getattr(learn.dls.valid, "images", None) if rows is learn.dls.valid.items else None
    paths, hashes = rows["path"].tolist(), rows["sha256"].tolist()
    return compute_features(body, paths, hashes, rules, device, create=create, precision=precision, pixels=pixels)
