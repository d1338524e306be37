"""kit fine-tune FOLDER: train, evaluate, and write a run folder with a bundle."""

import json
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from kit import processes
from kit.cli.options import with_recipe
from kit.console import emit, json_lines, say
from kit.errors import RecipeError
from kit.recipe import Recipe

Out = Annotated[Path | None, typer.Option(help="the new run folder; default runs/NAME")]
Json = Annotated[bool, typer.Option("--json", help="print result.json to standard output")]
JsonLines = Annotated[
    bool,
    typer.Option("--json-lines", help="print progress and result to standard output, a JSON object a line (README.md)"),
]
Examples = Annotated[
    bool, typer.Option(help="a few validation photos are shared with the bundle, small, without metadata")
]
Folds = Annotated[
    int | None,
    typer.Option(help="k-fold cross-validation: train this many times, each image validated once"),
]
Onnx = Annotated[bool, typer.Option(help="write model.onnx into the bundle, to predict without torch")]


Images = Annotated[str | None, typer.Argument(help="a folder of labelled images, or a named data set: sample, pets")]
Resume = Annotated[
    Path | None, typer.Option(help="go on with the stopped run in this folder; its recipe applies, FOLDER is left out")
]
AllowChanged = Annotated[
    bool, typer.Option(help="with --resume: go on though images were removed or changed; new ones are left out")
]


@with_recipe
def fine_tune(
    recipe: Recipe,
    folder: Images = None,
    out: Out = None,
    examples: Examples = True,
    onnx: Onnx = True,
    folds: Folds = None,
    resume: Resume = None,
    allow_changed_data: AllowChanged = False,
    as_json: Json = False,
    lines: JsonLines = False,
) -> None:
    """Fine-tune a pretrained network on FOLDER, evaluate it, and write a run folder with a bundle."""
    if lines and as_json:
        raise RecipeError("--json and --json-lines both print the result", fix="choose one of them")
    with json_lines() if lines else nullcontext():
        if resume is not None:
            check_nothing_else(recipe, {"FOLDER": folder, "--out": out, "--folds": folds})
            from kit.pipeline import resume as resume_pipeline

            run = resume_pipeline(resume, allow_changed_data=allow_changed_data)
        elif folder is None:
            problem = "there is nothing to train on"
            raise RecipeError(problem, fix="kit fine-tune FOLDER, or kit fine-tune --resume RUN")
        elif allow_changed_data:
            raise RecipeError("--allow-changed-data has no effect without --resume", fix="add --resume RUN")
        elif folds is None:
            from kit.pipeline import fine_tune as run_pipeline

            run = run_pipeline(folder, recipe, out=out, examples=examples, onnx=onnx)
        else:
            from kit.cross_validation import cross_validate

            run = cross_validate(folder, recipe, folds=folds, out=out)
        if processes.rank():
            return
        say("\n".join(["", *run.lines()]))
        figures = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
        emit("result", folder=str(run.folder), **figures)
    if as_json:
        print(json.dumps(figures))
    elif not lines:
        print(f"{run.evaluation.name} {run.headline}")


def check_nothing_else(recipe: Recipe, others: dict[str, object]) -> None:
    """`RecipeError` for arguments that a resumed run would ignore, because they are in its folder."""
    given = [name for name, value in others.items() if value is not None]
    fields_given = (field.name for field in fields(Recipe) if getattr(recipe, field.name) != field.default)
    given += [f"--{name.replace('_', '-')}" for name in fields_given]
    if given:
        problem = f"--resume goes on with the images and recipe of the run, so that {', '.join(given)} has no effect"
        raise RecipeError(problem, fix="leave it out, or start a new run")
