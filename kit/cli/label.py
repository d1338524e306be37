"""kit label FOLDER: give labels to new images on a page."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.clean import Open, Out, Port
from kit.cli.options import with_recipe
from kit.recipe import Recipe

Images = Annotated[str, typer.Argument(help="a folder of images without labels")]
Classes = Annotated[
    str, typer.Option(help="the classes to choose from, comma-separated; more can be added on the page")
]
Like = Annotated[Path | None, typer.Option(help="a bundle or run that gives the classes and first suggestions")]


@with_recipe
def label(
    folder: Images,
    recipe: Recipe,
    classes: Classes = "",
    like: Like = None,
    out: Out = None,
    port: Port = 7861,
    open_page: Open = True,
) -> None:
    """Label the images in FOLDER on a page, those first that tell a model the most; the labels go into a CSV."""
    from kit import clean as cleaning

    names = [name.strip() for name in classes.split(",") if name.strip()]
    cleaning.label(folder, recipe, names, like, out, port=port, browser=open_page and sys.stdout.isatty())
