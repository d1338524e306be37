"""The search space of `kit tune`: which settings are searched, which values they can have, and the recipe of a trial.

base, space = search_space(Recipe(size=128)); recipe_of(base, {"layers": "all", "rate": 1e-4})
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from kit.errors import RecipeError, WeightsError, did_you_mean, some_of
from kit.model.architectures import AUTO
from kit.model.build import choose_architecture
from kit.model.inventory import networks_here
from kit.recipe import OF_ALL_LAYERS, Recipe
from kit.tasks import of

if TYPE_CHECKING:
    import optuna

NETWORK = "network"  # arch and weights, which belong together
LAYERS = "layers"
RANGES = ("epochs", "rate")  # searched between two ends; all others have a list of values
VALUES = {
    NETWORK: [],  # those whose weights are on this machine
    "size": [128, 224, 288],
    LAYERS: ["head", "all"],
    "epochs": [1, 6],
    "rate": [1e-5, 1e-2],
    "augment": [True, False],
    "mixup": [0.0, 0.4],
    "label_smoothing": [0.0, 0.1],
}
WITHOUT_EFFECT_ON_A_HEAD = {"epochs", "augment", *OF_ALL_LAYERS}
START = {"rate": 1e-4}  # of the first trials; other settings start with the recipe's
FIRST = (("resnet18", "imagenet"), ("tf_efficientnet_lite0", "imagenet"))
Space = dict[str, list[Any]]


def search_space(recipe: Recipe, names: Sequence[str] | None = None) -> tuple[Recipe, Space]:
    """The recipe of all trials, and the values of the settings that differ from trial to trial.

    names: of the settings to search; by default all of `VALUES` that `recipe` leaves at their defaults. Raises
    `RecipeError` for names that cannot be searched, and `WeightsError` where no weights are on this machine.
    """
    if recipe.patience:
        problem = f"patience={recipe.patience} would choose the winner's weights by the held-out images"
        raise RecipeError(problem, fix="leave it out: the number of epochs is searched")
    if recipe.weights == "none" and recipe.layers == "auto":
        recipe = replace(recipe, layers="whole")
    fixed = _fixed(recipe)
    for name in names or ():
        if name not in VALUES:
            raise RecipeError(f"{name!r} cannot be searched.{did_you_mean(name, VALUES)}", fix=f"one of: {_all()}")
        if name in fixed:
            raise RecipeError(f"{name} is to be searched, but {fixed[name]}", fix=f"leave out one of the two: {name}")
    space = {name: values for name, values in VALUES.items() if name in (names or VALUES) and name not in fixed}
    if NETWORK in space:
        space[NETWORK] = [" ".join(pair) for pair in networks(recipe.arch)]
    if recipe.presize and "size" in space:
        space["size"] = [size for size in space["size"] if size <= recipe.presize]
    base = (
        replace(recipe, arch=choose_architecture(recipe.arch, recipe.weights).full_name) if NETWORK in fixed else recipe
    )
    for name in [name for name, values in space.items() if len(values) == 1]:
        base = recipe_of(base, {name: space.pop(name)[0]})
    if not space:
        raise RecipeError("there is nothing to search: all settings are fixed", fix=f"leave some of them out: {_all()}")
    return base, space


def _all() -> str:
    return ", ".join(VALUES)


def _fixed(recipe: Recipe) -> dict[str, str]:
    """The settings that cannot be searched with this recipe, each with the reason."""
    given = {one.name: getattr(recipe, one.name) for one in fields(Recipe) if getattr(recipe, one.name) != one.default}
    fixed = {name: f"{name}={value!r} is given" for name, value in given.items() if name in VALUES}
    if "weights" in given:
        fixed[NETWORK] = f"weights={recipe.weights!r} is given"
    if recipe.cutmix:
        fixed["mixup"] = f"cutmix={recipe.cutmix:g} is given"
    if recipe.tta:
        fixed["augment"] = f"tta={recipe.tta} needs it"
    if recipe.layers == "head":
        fixed |= dict.fromkeys(WITHOUT_EFFECT_ON_A_HEAD, "it has no effect with layers='head'")
    if "label_smoothing" not in of(recipe.task).recipe_fields:
        fixed["label_smoothing"] = f"the task {recipe.task} has none"
    return fixed


def networks(arch: str) -> list[tuple[str, str]]:
    """The fields arch and weights of the networks whose weights are on this machine, kit's default first; with `arch`,
    those of that network alone. Raises `WeightsError` where there are none."""
    here = networks_here()
    found = [pair for pair in here if arch in (AUTO, pair[0], pair[0].partition(".")[0])]
    if not found:
        problem = f"no weights of {arch} are on this machine; there are: {some_of([name for name, _ in here])}"
        fix = "kit weights lists them; kit fine-tune downloads others, where there is a network"
        raise WeightsError(problem, fix=fix)
    return sorted(found, key=lambda pair: FIRST.index(pair) if pair in FIRST else len(FIRST))


def suggest(trial: "optuna.Trial", base: Recipe, space: Space) -> dict[str, Any]:
    """The values of a trial's settings, without those that have no effect."""
    values: dict[str, Any] = {}
    for name, choices in space.items():
        if values.get(LAYERS, base.layers) == "head" and name in WITHOUT_EFFECT_ON_A_HEAD:
            continue
        if name == "rate":
            values[name] = trial.suggest_float(name, *choices, log=True)
        elif name in RANGES:
            values[name] = trial.suggest_int(name, *choices)
        else:
            values[name] = trial.suggest_categorical(name, choices)
    return values


def starting_points(base: Recipe, space: Space) -> list[dict[str, Any]]:
    """kit's defaults, once for each way of training: what the first trials try."""
    usual = {}
    for name, choices in space.items():
        value = recipe_of(base, usual).input_size if name == "size" else START.get(name, getattr(base, name, None))
        usual[name] = value if value in choices or name in RANGES else choices[0]
    points = [usual | {LAYERS: layers} for layers in space[LAYERS]] if LAYERS in space else [usual]
    return [_with_effect(point, base) for point in points]


def _with_effect(values: dict[str, Any], base: Recipe) -> dict[str, Any]:
    head = values.get(LAYERS, base.layers) == "head"
    return {name: value for name, value in values.items() if not (head and name in WITHOUT_EFFECT_ON_A_HEAD)}


def recipe_of(base: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe of a trial. Settings of `base` that have no effect on a head alone are left out of its recipe."""
    changes = dict(values)
    if NETWORK in changes:
        changes["arch"], changes["weights"] = changes.pop(NETWORK).split(" ", 1)
    if changes.get(LAYERS, base.layers) == "head":
        changes |= {one.name: one.default for one in fields(Recipe) if one.name in OF_ALL_LAYERS}
    return replace(base, **changes)


def described(values: dict[str, Any]) -> str:
    """A trial's settings in a few words."""
    words = [f"{value:.2g}" if name == "rate" else str(value) for name, value in values.items()]
    return ", ".join(word if name == NETWORK else f"{name} {word}" for name, word in zip(values, words, strict=True))
