"""The whole pipeline: from a folder of labelled images to a trained learner, its error rate and a bundle.

run = kit.fine_tune("pets/images", label=kit.is_cat, arch="resnet34", epochs=1)
"""

import inspect
import threading
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import bundle, data, evaluate, model, train
from kit.console import say
from kit.errors import DataError, RecipeError, TrainingError, did_you_mean
from kit.recipe import Recipe
from kit.runs import Run, run_folder, write_run

if TYPE_CHECKING:
    from fastai.vision.all import Learner

    from kit.train.history import History
    from kit.train.rates import RateCurve

# Training draws from random numbers that all threads share, so threads take turns: each result is that of one alone.
ONE_AT_A_TIME = threading.RLock()


def fine_tune(
    source: str | Path | pd.DataFrame,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    item_tfms: Sequence | None = None,
    batch_tfms: Sequence | None = None,
    cbs: list | None = None,
    examples: bool = True,
    onnx: bool = True,
    **options: Any,
) -> Run:
    """Fine-tune a pretrained network on a folder of labelled images; returns the `Run`, whose folder has all results.

    source: a folder, a DataFrame with path and label, or a named data set. out: a new folder, by default in runs/.
    item_tfms, batch_tfms, cbs: fastai's. examples, onnx: as in `bundle.save`. options: fields of `Recipe`, and
    arguments of fastai's Learner (metrics, loss_func, opt_func, splitter, wd, moms, ...). Raises `KitError`, before
    training where possible. After Ctrl-C, or a loss that is not finite, the weights so far are evaluated and saved
    before `KeyboardInterrupt` or `TrainingError` is raised.
    """
    started = time.perf_counter()
    changes, learner_options = divide(options)
    recipe = replace(recipe or Recipe(), **changes)
    with run_folder(source, recipe, out) as folder, ONE_AT_A_TIME:
        train.check_log(recipe.log)
        table = checked_table(source, recipe)  # before torch and fastai are loaded, which takes seconds
        train.seed_everything(recipe.seed)
        dls = data.blocks(recipe, item_tfms=item_tfms, batch_tfms=batch_tfms).dataloaders(table)
        learn = model.learner(dls, recipe, **learner_options)
        bundle.check_preparation(learn)
        with bundle.room_for(learn, folder, onnx):
            history, stop = trained(learn, recipe, cbs, folder)
            result = evaluate.evaluate(learn)
            views = evaluate.evaluate_views(learn, result, recipe.tta)
            held_out = table[table["split"] == "test"]
            test = evaluate.evaluate(learn, held_out) if len(held_out) else None
        saved = bundle.save(learn, result, folder / "bundle", examples=examples, onnx=onnx)
        run = Run(source, folder, table, learn, history, result, test, saved, time.perf_counter() - started, views)
        write_run(run)
        return ended(run, stop)


def trained(
    learn: "Learner", recipe: Recipe, cbs: list | None, folder: Path
) -> "tuple[History, KeyboardInterrupt | TrainingError | None]":
    """The history of `train.fine_tune`, and the exception that ended it, if at least one step was done before."""
    history = train.History()
    try:
        train.fine_tune(learn, recipe, cbs=cbs, history=history, log_folder=folder)
    except (KeyboardInterrupt, TrainingError) as stop:
        if not history.stopped or (not history.rows and not history.steps):
            raise
        say(f"{history.stopped}\nafter {len(history.steps)} steps; what was learned until then is measured and saved")
        return history, stop
    return history, None


def ended(run: Run, stop: KeyboardInterrupt | TrainingError | None) -> Run:
    """The finished run; or raise the exception that ended it, after printing how to continue."""
    if stop is None:
        return run
    say("\n".join(["", *run.lines(), f"to go on from here: kit fine-tune {run.source} --weights {run.folder}"]))
    if isinstance(stop, TrainingError):
        raise TrainingError(stop.problem, fix=f"{stop.fix}; the weights from before it are in {run.folder}")
    raise stop


def find_rate(source: str | Path | pd.DataFrame, recipe: Recipe) -> "RateCurve":
    """The learning-rate finder's curve and suggestion for a recipe, as for `--rate auto`. Writes no file."""
    with ONE_AT_A_TIME:
        table = checked_table(source, recipe)
        train.seed_everything(recipe.seed)
        dls = data.blocks(recipe).dataloaders(table)
        data.cache_images(dls, recipe.cache)
        return train.find_rate(model.learner(dls, recipe), recipe)


def divide(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that are fields of `Recipe`, and those of fastai's Learner; `RecipeError` for any other."""
    ours = {field.name for field in fields(Recipe)}
    if ours.issuperset(options):
        return options, {}
    from fastai.vision.all import Learner

    theirs = set(inspect.signature(Learner.__init__).parameters) - {"self", "dls", "model", "cbs"}
    for name in options:
        if name not in ours | theirs:
            hint = did_you_mean(name, ours | theirs)
            fix = f"fields of Recipe: {', '.join(sorted(ours))}; of fastai's Learner: {', '.join(sorted(theirs))}"
            raise RecipeError(f"fine_tune has no argument {name!r}.{hint}", fix=fix)
    changes = {name: value for name, value in options.items() if name in ours}
    return changes, {name: value for name, value in options.items() if name not in ours}


def checked_table(source: str | Path | pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The table of a source for a recipe, checked, with a printed report; `DataError` where training would fail."""
    table = data.table(source, **data.table_args(recipe))
    report = data.check(table, recipe.fixed_batch)
    say("\n".join(report.lines()))
    if report.errors:
        raise DataError("; ".join(report.errors), fix="mend the folder, or the label rule (--label)")
    return table
