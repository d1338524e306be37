"""kit fine-tune FOLDER: train, evaluate, and write a run folder with a bundle."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Folder, with_recipe
from kit.console import say
from kit.recipe import Recipe

Out = Annotated[Path | None, typer.Option(help="the new run folder; default runs/NAME")]
Json = Annotated[bool, typer.Option("--json", help="print result.json to standard output")]
Examples = Annotated[
    bool, typer.Option(help="a few validation photos are shared with the bundle, small, without metadata")
]
Folds = Annotated[
    int | None,
    typer.Option(help="k-fold cross-validation: train this many times, each image validated once"),
]
Onnx = Annotated[bool, typer.Option(help="write model.onnx into the bundle, to predict without torch")]


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
    """Fine-tune a pretrained network on FOLDER, evaluate it, and write a run folder with a bundle."""
    if folds is None:
        from kit.pipeline import fine_tune as run_pipeline

        run = run_pipeline(folder, recipe, out=out, examples=examples, onnx=onnx)
    else:
        from kit.cross_validation import cross_validate

        run = cross_validate(folder, recipe, folds=folds, out=out)
    say("\n".join(["", *run.lines()]))
    if as_json:
        print(json.dumps(json.loads((run.folder / "result.json").read_text(encoding="utf-8"))))
    else:
        print(f"{run.evaluation.name} {run.headline}")
