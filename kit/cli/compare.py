"""kit compare RUN_A RUN_B: which of two runs is better, and whether there are enough images to say so."""

import json
from pathlib import Path
from typing import Annotated

import typer

RunA = Annotated[Path, typer.Argument(help="a run folder")]
RunB = Annotated[Path, typer.Argument(help="the run folder to compare it with")]
Json = Annotated[bool, typer.Option("--json", help="print the figures as JSON")]


def compare(run_a: RunA, run_b: RunB, as_json: Json = False) -> None:
    """Compare two runs on the validation images of both: difference, its 95 % interval, and McNemar's test."""
    from kit.evaluate.comparison import compare as compare_runs

    found = compare_runs(run_a, run_b)
    print(json.dumps(found.to_json()) if as_json else found)
