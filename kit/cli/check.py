"""kit check FOLDER: find problems of a folder before training."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli.options import Folder, with_recipe
from kit.console import say
from kit.files import claimed, write_json, write_text
from kit.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from kit.data.audit import Check

Show = Annotated[
    Path | None,
    typer.Option(help="write a picture of a training batch here (PNG), and print a sample's transforms"),
]
Out = Annotated[
    Path | None,
    typer.Option(help="a new folder for the report: check.json, images.csv (a row for each image), check.png"),
]
Json = Annotated[bool, typer.Option("--json", help="print the findings as JSON")]


@with_recipe
def check(folder: Folder, recipe: Recipe, out: Out = None, show: Show = None, as_json: Json = False) -> None:
    """Check FOLDER before training: classes, duplicates, damaged, dark, blurred files; exit code 1 for errors."""
    from kit import data

    with claimed(out) if out else nullcontext():
        table = data.survey(folder, **data.table_args(recipe))
        report = data.check(table, recipe.fixed_batch, recipe.input_size)
        if out:
            write_report(table, report, out, recipe.input_size)
    print(json.dumps(report.to_json()) if as_json else "\n".join(report.lines()))
    if report.errors:
        raise typer.Exit(1)
    if show:
        batch = max(2, min(recipe.batch, int((table["split"] == "train").sum())))
        dls = data.blocks(replace(recipe, batch=batch)).dataloaders(table)
        say(data.trace_sample(dls))
        data.show_batch(dls, show)
        say(f"{show}: a training batch with its labels")


def write_report(table: "pd.DataFrame", report: "Check", folder: Path, size: int) -> None:
    """Write the report as check.json, images.csv and check.png."""
    from kit import data

    write_json(folder / "check.json", report.to_json())
    write_text(folder / "images.csv", table.to_csv(index=False, lineterminator="\n"))
    data.draw_check(table, report, folder / "check.png", size)
    say(f"{folder}: check.json, images.csv, check.png")
