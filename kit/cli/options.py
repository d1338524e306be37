"""Command-line options from the Recipe's fields: one source for the help, Python and recipe.json.

@app.command()
@with_recipe
def fine_tune(folder: Path, recipe: Recipe, ...): ...
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_args

import typer

from kit.recipe import Recipe, explanations

PLAIN = (str, int, float, bool)


def with_recipe(command: Callable) -> Callable:
    """Replace a command's parameter `recipe` by an option for each field of `Recipe`, and hand the recipe in."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "recipe"]
    options = [_option(field) for field in fields(Recipe)]
    names = [option.name for option in options]

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        recipe = Recipe(**{name: values.pop(name) for name in names})
        return command(recipe=recipe, **values)

    run.__signature__ = signature.replace(parameters=[*own, *options])
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *options]}
    return run


def _option(field: Any) -> inspect.Parameter:
    kinds = [kind for kind in (field.type, *get_args(field.type)) if kind in PLAIN]
    kind = kinds[0] if field.default is not None else kinds[0] | None
    text = typer.Option(help=explanations()[field.name], rich_help_panel="Recipe")
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, text]
    )
