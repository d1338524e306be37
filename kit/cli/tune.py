"""kit tune FOLDER: search for the settings that work best on these images, and train with them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.fine_tune import Examples, Onnx
from kit.cli.options import Folder, with_recipe
from kit.console import say
from kit.recipe import Recipe

Trials = Annotated[int, typer.Option(help="how many trials, those of all processes together")]
Minutes = Annotated[
    float | None, typer.Option(help="no trial starts after so many minutes; then the winner is trained")
]
Study = Annotated[
    str | None,
    typer.Option(
        help="a database for several machines: postgresql://USER:PASSWORD@HOST/DATABASE; default a file in --out"
    ),
]
Names = Annotated[
    str | None,
    typer.Option(
        "--search",
        help="what is searched, comma-separated: network, size, layers, epochs, rate, augment, mixup, label_smoothing;"
        " default all that no option gives",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="the folder of the search; default runs/tune-NAME. Its name is the study's")
]
Json = Annotated[bool, typer.Option("--json", help="print tune.json to standard output")]


@with_recipe
def tune(
    folder: Folder,
    recipe: Recipe,
    trials: Trials = 30,
    minutes: Minutes = None,
    study: Study = None,
    search: Names = None,
    out: Out = None,
    examples: Examples = True,
    onnx: Onnx = True,
    as_json: Json = False,
) -> None:
    """Search for the best settings inside the training images of FOLDER, and train the winner as a normal run.

    The same command again goes on with a search that was stopped, or joins one that runs.
    """
    from kit.scale import tune as search_settings

    names = [name.strip() for name in search.split(",")] if search else None
    found = search_settings(
        folder, recipe, trials=trials, minutes=minutes, study=study, search=names, out=out, examples=examples, onnx=onnx
    )
    if found.run:
        say("\n".join(["", *found.lines()]))
    if as_json:
        print(json.dumps(found.figures()))
    elif found.run:
        print(f"{found.run.evaluation.name} {found.run.headline}")
