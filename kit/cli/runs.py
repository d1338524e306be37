"""kit runs: list runs with their state, their result, and the command to go on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

Where = Annotated[Path, typer.Argument(help="the folder that holds the runs")]
Json = Annotated[bool, typer.Option("--json", help="print the list as JSON")]


def runs(folder: Where = Path("runs"), as_json: Json = False) -> None:
    """List the runs in FOLDER: running, stopped or done, with result or progress, and the command to go on."""
    from kit.unfinished import list_runs

    found = list_runs(folder)
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2))
    else:
        print("\n".join(map(str, found)) or f"no runs in {folder}")
