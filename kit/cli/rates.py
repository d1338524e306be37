"""kit rates FOLDER: run the learning rate finder, draw its curve and print the suggested rate."""

from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Folder, with_recipe
from kit.console import say
from kit.recipe import Recipe

Out = Annotated[Path, typer.Option(help="the picture of the curve (PNG); its values are written beside it (CSV)")]
LINES = 12


@with_recipe
def rates(folder: Folder, recipe: Recipe, out: Out = Path("rates.png")) -> None:
    """Train a copy for 100 batches with a rising rate, draw the loss, and print the rate that --rate auto would use."""
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
