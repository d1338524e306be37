"""kit clean FOLDER: find wrong labels, copies and odd images, and decide about them on a page."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.cli.options import Folder, with_recipe
from kit.console import say
from kit.files import write_text
from kit.recipe import Recipe

Out = Annotated[Path | None, typer.Option(help="the CSV for the decisions; default FOLDER-labels.csv")]
Json = Annotated[bool, typer.Option("--json", help="print the findings as JSON; with --out, write them as CSV")]
Port = Annotated[int, typer.Option(help="the port of the page; 0 takes a free one")]
Open = Annotated[bool, typer.Option("--open/--no-open", help="open the page in the browser")]
Apply = Annotated[bool, typer.Option("--apply", help="move files as decided, after a summary and a question")]
Undo = Annotated[bool, typer.Option("--undo-apply", help="move the files back that --apply moved")]
Yes = Annotated[bool, typer.Option("--yes", help="with --apply: do not ask")]


@with_recipe
def clean(
    folder: Folder,
    recipe: Recipe,
    out: Out = None,
    as_json: Json = False,
    port: Port = 7861,
    open_page: Open = True,
    apply: Apply = False,
    undo_apply: Undo = False,
    yes: Yes = False,
) -> None:
    """Find wrong labels, copies, odd and poor images in FOLDER (or in a run's images), and decide about them.

    Opens a page on this machine. Decisions go into a CSV for kit fine-tune --labels; no image is changed.
    """
    from kit import clean as cleaning

    csv = out or cleaning.default_csv(folder)
    if apply or undo_apply:

        def sure() -> bool:
            return yes or typer.confirm("move these files?")

        cleaning.apply(folder, recipe, csv, sure) if apply else cleaning.undo_apply(csv, sure)
        return
    if as_json:
        found = cleaning.find_issues(folder, recipe)
        if out:
            write_findings(found, out)
        else:
            print(json.dumps(found))
        return
    cleaning.clean(folder, recipe, csv, port=port, browser=open_page and sys.stdout.isatty())


def write_findings(found: list[dict[str, Any]], path: Path) -> None:
    """Write the findings as CSV; similar images are separated by |."""
    import pandas as pd

    rows = [one | {"similar": "|".join(one.get("similar", ()))} for one in found]
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    say(f"{path}: {len(rows)} findings")
