"""The whole pipeline: from a folder of labelled images to a trained learner, its error rate and a bundle.

run = kit.fine_tune("pets/images", label=kit.is_cat, arch="resnet34", epochs=1)
"""

import inspect
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import bundle, data, model, processes, train
from kit.console import complain, emit, say
from kit.data.scan import CHANGED, SCAN_AGAIN
from kit.errors import DataError, OutputError, RecipeError, Terminated, TrainingError, did_you_mean
from kit.evaluate.result import Result
from kit.files import held
from kit.missing import evaluate_views, evaluated, named, saved, unmeasured, without_vanished
from kit.recipe import Recipe
from kit.runs import Run, run_folder, write_run
from kit.signals import Signals
from kit.unfinished import Job, clear_results, read_job, same_data

if TYPE_CHECKING:
    from fastai.vision.all import Learner

    from kit.train.checkpoint import Checkpoint
    from kit.train.history import History
    from kit.train.rates import RateCurve

# Training draws from random numbers that all threads share, so threads take turns: each result is that of one alone.
ONE_AT_A_TIME = threading.RLock()
Stop = KeyboardInterrupt | Terminated | TrainingError


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
    before `KeyboardInterrupt` or `TrainingError` is raised. `resume` goes on with a run that was stopped. In processes
    that torchrun started, all take part and return the run; the first one reads the labels and writes the folder.
    """
    processes.join()
    changes, learner_options = divide(options)
    recipe = replace(recipe or Recipe(), **changes)
    python = Python(item_tfms, batch_tfms, cbs, learner_options)
    with processes.entered_first(run_folder(source, recipe, out)) as folder:
        return _run(source, recipe, folder, Job.of(source, recipe, examples, onnx, python.names), python)


def resume(
    folder: str | Path,
    *,
    source: pd.DataFrame | None = None,
    label: Callable | None = None,
    item_tfms: Sequence | None = None,
    batch_tfms: Sequence | None = None,
    cbs: list | None = None,
    allow_changed_data: bool = False,
    **learner_options: Any,
) -> Run:
    """Go on with a run that was stopped, from its last checkpoint, with its own recipe; returns the finished `Run`.

    On a CPU the result is that of the run that was never stopped, in every bit. source, label and the others: those
    arguments of `fine_tune` that a file cannot hold; what was given there has to be given again. allow_changed_data:
    go on though images were removed or changed; new ones are left out. Raises `OutputError` where the folder holds
    nothing to go on with, and `DataError` with the names of changed images.
    """
    processes.join()
    folder = Path(folder)
    job, python = processes.first(read_job, folder), Python(item_tfms, batch_tfms, cbs, learner_options)
    given = {name: value for name, value in (("source", source), ("label", label)) if value is not None}
    images, recipe = job.arguments(folder, given | dict.fromkeys(python.names))
    with processes.entered_first(held(folder)):
        return _run(images, recipe, folder, job, python, resumed=True, allow_changed_data=allow_changed_data)


@dataclass(frozen=True)
class Python:
    """The arguments of `fine_tune` that only Python can give."""

    item_tfms: Sequence | None
    batch_tfms: Sequence | None
    cbs: list | None
    learner: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The names of those that were given."""
        own = ("item_tfms", "batch_tfms", "cbs")
        return [name for name in own if getattr(self, name) is not None] + list(self.learner)


def _run(
    source: str | Path | pd.DataFrame,
    recipe: Recipe,
    folder: Path,
    job: Job,
    python: Python,
    *,
    resumed: bool = False,
    allow_changed_data: bool = False,
) -> Run:
    """Train into a folder, from the start or from its last checkpoint, evaluate, and write the run."""
    started = time.perf_counter()
    same, checkpoint = True, None
    with ONE_AT_A_TIME, Signals().handled() as signals, ExitStack() as stack, ExitStack() as room:
        stack.enter_context(ended_together(folder, signals))
        train.check_log(recipe.log)
        # before torch and fastai are loaded, which takes seconds
        looked_at = replace(recipe, unlabelled="skip") if allow_changed_data else recipe
        table = processes.first(checked_table, source, looked_at)
        if resumed:
            table, same = processes.first(same_data, job, folder, table, allow_changed_data)
        if recipe.checkpoint_every:
            checkpoint = train.Checkpoint(folder, recipe.checkpoint_every, signals)
            stack.enter_context(checkpoint.tidied(resumed))
            processes.first(job.write, folder, table)
        emit("start", folder=str(folder), images=table["split"].value_counts().to_dict())
        block = data.blocks(recipe, item_tfms=python.item_tfms, batch_tfms=python.batch_tfms)

        def reserve(learn: "Learner") -> None:
            room.enter_context(bundle.room_for(learn, folder, job.onnx))

        def learned(rows: pd.DataFrame) -> "tuple[Learner, History, Stop | None]":
            if checkpoint:
                checkpoint.load(same and rows is table)
            train.seed_everything(recipe.seed)
            learn = model.learner(block.dataloaders(rows), recipe, **python.learner)
            bundle.check_preparation(learn)
            room.close()
            processes.first(reserve, learn)
            return learn, *trained(learn, recipe, python.cbs, folder, checkpoint)

        learn, history, stop = without_vanished(table, recipe, learned)
        emit("phase", phase="evaluate")
        result = evaluated(learn, learn.dls.valid.items)
        if result is None:
            raise unmeasured(folder, learn, history)
        held_out = table[table["split"] == "test"]
        test = evaluated(learn, held_out) if len(held_out) else None
        views = processes.first(evaluate_views, learn, result, recipe.tta)
        room.close()
        if resumed:
            processes.first(clear_results, folder)

        def save(result: Result, folder: Path = folder) -> Path:
            return bundle.save(learn, result, folder / "bundle", examples=job.examples, onnx=job.onnx)

        try:
            bundle_folder, result, missing = processes.first(saved, save, result, table)
        except OutputError as error:
            elsewhere = processes.first(lambda: save(result, Path(tempfile.mkdtemp(prefix="kit-"))))
            raise OutputError(error.problem, fix=f"{error.fix}; the bundle is in {elsewhere}") from error
        seconds = time.perf_counter() - started + (checkpoint.seconds if checkpoint else 0.0)
        run = Run(source, folder, table, learn, history, result, test, bundle_folder, seconds, views, missing)
        processes.first(write_run, run)
        processes.first(train.log_results, history, folder, result.figures())
        return ended(run, stop, checkpoint)


@contextmanager
def ended_together(folder: Path, signals: Signals) -> Iterator[None]:
    """Of several processes: the error of the others when one has ended, for example because it was killed."""
    problem = f"another of the {processes.count()} processes of this run has ended, so this one ends too"
    fix = f"kit fine-tune --resume {folder}, with any number of processes, goes on from the last checkpoint"
    try:
        yield
    except RuntimeError as error:
        if not processes.lost(error):
            raise
        raise TrainingError(problem, fix=f"if that one printed no error: {fix}") from error
    except Terminated:
        if processes.count() > 1 and not signals.stop:  # torchrun sends SIGTERM before this process notices
            complain(f"stopped by SIGTERM, or {problem}\n  Fix: {fix}, where there is one")
        raise


def trained(
    learn: "Learner", recipe: Recipe, cbs: list | None, folder: Path, checkpoint: "Checkpoint | None"
) -> "tuple[History, Stop | None]":
    """The history of `train.fine_tune`, and the exception that ended it, if at least one step was done before."""
    history = train.History()
    try:
        train.fine_tune(learn, recipe, cbs=cbs, history=history, log_folder=folder, checkpoint=checkpoint)
    except (KeyboardInterrupt, Terminated, TrainingError) as stop:
        if not history.stopped or (not history.rows and not history.steps):
            raise
        processes.send_state(learn.model)
        say(f"{history.stopped}\nafter {len(history.steps)} steps; what was learned until then is measured and saved")
        return history, stop
    return history, None


def ended(run: Run, stop: Stop | None, checkpoint: "Checkpoint | None") -> Run:
    """The finished run, without checkpoints; or raise the exception that ended it, after printing how to continue."""
    if checkpoint and not isinstance(stop, KeyboardInterrupt | Terminated):
        processes.first(checkpoint.remove)
    if stop is None and CHANGED in run.missing.values():
        problem = f"images were replaced during the run: {named(run.missing)}"
        stop = TrainingError(problem, fix=SCAN_AGAIN)
    if stop is None:
        return run
    on = f"--resume {run.folder}" if checkpoint and checkpoint.any else f"{run.source} --weights {run.folder}"
    say("\n".join(["", *run.lines(), f"to go on from here: kit fine-tune {on}"]))
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
