"""kit fine-tune FOLDER: the whole line from a folder to a bundle."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import with_recipe
from kit.console import say
from kit.recipe import Recipe

Folder = Annotated[str, typer.Argument(help="a folder of labelled images, or a named data set: sample, pets")]
Out = Annotated[Path | None, typer.Option(help="the run folder to write, new; by default runs/NAME")]
Json = Annotated[bool, typer.Option("--json", help="print result.json to standard output")]
Examples = Annotated[
    bool, typer.Option(help="a few validation photos are shared with the bundle, small, without metadata")
]
Folds = Annotated[
    int | None, typer.Option(help="k-fold: train so many times, each image predicted by a network that never saw it")
]
Onnx = Annotated[bool, typer.Option(help="write model.onnx into the bundle, which predicts without torch")]


@with_recipe
def fine_tune(
    folder: Folder,
    recipe: Recipe,
    out: Out = None,
    examples: Examples = True,
    onnx: Onnx = True,
    folds: Folds = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a pretrained network on FOLDER, measure it, and write a run folder with a bundle."""
    from kit.cross_validation import cross_validate
    from kit.pipeline import fine_tune as run_pipeline

    if folds is None:
        run = run_pipeline(folder, recipe, out=out, examples=examples, onnx=onnx)
    else:
        run = cross_validate(folder, recipe, folds=folds, out=out)
    say("\n".join(["", *run.lines()]))
    if as_json:
        print(json.dumps(json.loads((run.folder / "result.json").read_text(encoding="utf-8"))))
    else:
        print(f"{run.evaluation.name} {run.headline}")
