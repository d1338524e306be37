"""Options that several commands share, and options generated from the fields of `Recipe`.

@app.command()
@with_recipe
def fine_tune(folder: Path, recipe: Recipe, ...): ...
"""

import ast
import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from kit.offline import go_offline
from kit.recipe import Recipe

PLAIN = (str, int, float, bool)
Bundle = Annotated[Path, typer.Argument(help="the folder of a bundle or of a run")]
Folder = Annotated[str, typer.Argument(help="a folder of labelled images, or a named data set: sample, pets")]
Labels = Annotated[str | None, typer.Option(help="a CSV file with the columns path and label")]
Columns = Annotated[str | None, typer.Option("--targets", help="columns of --labels, as for kit fine-tune --targets")]
Device = Annotated[str, typer.Option(help="the device: auto, cpu, cuda, ...")]
Engine = Annotated[str, typer.Option(help="the engine: auto, onnx (starts fast, CPU only) or torch")]


def _without_network(value: bool) -> bool:
    if value:
        go_offline()
    return value


Offline = Annotated[
    bool,
    typer.Option("--offline", callback=_without_network, help="do not use the network; the same as KIT_OFFLINE=1"),
]


def with_recipe(command: Callable) -> Callable:
    """Replace the parameter `recipe` of a command by an option for each field of `Recipe`, and add --offline."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "recipe"]
    own.append(inspect.Parameter("offline", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Offline))
    options = [_option(field) for field in fields(Recipe)]
    names = [option.name for option in options]

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        recipe = Recipe(**{name: values.pop(name) for name in names})
        values.pop("offline")  # its callback has run already
        return command(recipe=recipe, **values)

    run.__signature__ = signature.replace(parameters=[*own, *options])
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *options]}
    return run


def _option(field: Any) -> inspect.Parameter:
    kinds = [kind for kind in (field.type, *get_args(field.type)) if kind in PLAIN]
    kind = kinds[0] if field.default is not None else kinds[0] | None
    words = {"parser": _number_or_word, "metavar": "NUMBER|auto"} if {float, str} <= set(kinds) else {}
    text = typer.Option(help=explanations()[field.name], rich_help_panel="Recipe", **words)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, text]
    )


def _number_or_word(text: str) -> float | str:
    """A float where possible, else the text, which `Recipe` checks."""
    try:
        return float(text)
    except ValueError:
        return text


@functools.cache
def explanations() -> dict[str, str]:
    """The docstring under each field of `Recipe`, by the field's name: the help texts of the options."""
    body = ast.parse(inspect.getsource(Recipe)).body[0].body
    texts = {}
    for line, below in pairwise(body):
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
            texts[line.target.id] = below.value.value
    return texts
