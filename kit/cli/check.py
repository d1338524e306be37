"""kit check FOLDER: look at a folder before training on it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import with_recipe
from kit.console import say
from kit.recipe import Recipe

Folder = Annotated[str, typer.Argument(help="a folder of labelled images, or a named data set: sample, pets")]
Show = Annotated[
    Path | None, typer.Option(help="write a picture of a training batch here (PNG), and how a sample travels")
]
Json = Annotated[bool, typer.Option("--json", help="print the findings as JSON")]


@with_recipe
def check(folder: Folder, recipe: Recipe, show: Show = None, as_json: Json = False) -> None:
    """Look at FOLDER before training: classes, splits, duplicates, broken files; exits with 1 if training fails."""
    from kit import data

    table = data.table(
        folder, label=recipe.label, labels=recipe.labels, split=recipe.split, valid=recipe.valid, seed=recipe.seed
    )
    report = data.check(table, recipe.batch)
    print(json.dumps(report.to_json(), ensure_ascii=False) if as_json else "\n".join(report.lines()))
    if report.errors:
        raise typer.Exit(1)
    if show:
        dls = data.blocks(recipe).dataloaders(table)
        say(data.travel(dls))
        data.show_batch(dls, show)
        say(f"{show}: a training batch with its labels")
