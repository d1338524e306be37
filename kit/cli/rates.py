"""kit rates FOLDER: the rate finder's curve, and the learning rate that it suggests."""

from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import with_recipe
from kit.console import say
from kit.recipe import Recipe

Folder = Annotated[str, typer.Argument(help="a folder of labelled images, or a named data set: sample, pets")]
Out = Annotated[Path, typer.Option(help="where to draw the curve (PNG); the same as a table lies beside it (CSV)")]
LINES = 12


@with_recipe
def rates(folder: Folder, recipe: Recipe, out: Out = Path("rates.png")) -> None:
    """Train a copy for 100 batches with a growing rate, draw the loss, and say which rate --rate auto would take."""
    from kit import train
    from kit.files import atomic_path, check_parent, write_text
    from kit.pipeline import find_rate

    check_parent(out)
    curve = find_rate(folder, recipe)
    table = curve.table()
    with atomic_path(out) as partial:
        train.draw_rates(curve, partial)
    write_text(out.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
    some = table.iloc[:: max(1, len(table) // LINES)]
    say(some.to_string(index=False, formatters={"rate": "{:.1e}".format, "loss": "{:.4f}".format}))
    say(f"{out}: the curve; {out.with_suffix('.csv')}: all {len(table)} steps")
    print(f"rate {curve.suggestion:.2g}")
