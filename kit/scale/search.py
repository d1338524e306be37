"""Search for the settings of a recipe with Optuna: each trial is trained and measured inside the training images.

found = tune("photos", trials=30, minutes=20); found.run.error_rate        # kit tune photos --trials 30 --minutes 20

    runs/tune-NAME/  study.db  trials.csv  trials.html  tune.json  pictures/  best/

The images that `kit fine-tune` would validate on are held out from all trials. A trial trains on four fifths of the
training images and is measured on the last fifth. The winner is then trained as a normal run, in best/, on all training
images, and measured once on the held-out ones. The best of many inner errors is too good; how much so is the optimism
that is reported.
"""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from fastai.vision.all import Callback
from optuna.trial import FrozenTrial, TrialState

from kit import data, model, train
from kit.console import say
from kit.data.splits import inner_folds
from kit.errors import (
    ArchitectureError,
    DataError,
    OutputError,
    RecipeError,
    Terminated,
    TrainingError,
    first_line,
    some_of,
)
from kit.files import CHECKPOINT, PARTIAL, write_json, write_text
from kit.intervals import Estimate, difference
from kit.missing import evaluated
from kit.model.inventory import networks_here
from kit.pipeline import ONE_AT_A_TIME, checked_table, divide, fine_tune, resume
from kit.recipe import Recipe
from kit.runs import Run
from kit.scale.report import write_report
from kit.scale.space import Space, described, recipe_of, search_space, starting_points, suggest
from kit.scale.study import (
    FACTS,
    OTHER,
    SAME_AS,
    as_failure,
    database,
    database_url,
    fail_dead_trials,
    finished,
    open_study,
    quiet_optuna,
    running_elsewhere,
    shown,
)
from kit.signals import Signals
from kit.tasks import of
from kit.tasks.training import training_of
from kit.unfinished import JOB

FOLDS = 5
REPEATS = 5  # how many trials may be the same as others, for each that is not
STUDY, BEST = "study.db", "best"
OURS = {STUDY, f"{STUDY}-journal", BEST, "pictures", "trials.csv", "trials.html", "tune.json"}
UNSUITABLE = (TrainingError, ArchitectureError, RecipeError)  # a trial's settings, which others do not have


@dataclass(frozen=True)
class Search:
    """What a search found.

    study: Optuna's, with all trials. recipe: the winner's; winner: its trial; inner: its figure on the inner validation
    images. run: the winner, trained on all training images and measured on the held-out ones; None where another
    process does that.
    """

    folder: Path
    study: optuna.Study
    recipe: Recipe
    winner: FrozenTrial
    inner: Estimate
    run: Run | None

    @property
    def optimism(self) -> Estimate | None:
        """How much better the figure that chose the winner is than that on held-out images, with its 95 % interval.

        Above 0 the search looks better than it is. The run was trained on a quarter more images than the trial, which
        works against it. None without a run.
        """
        if self.run is None:
            return None
        higher_is_better = self.study.direction == optuna.study.StudyDirection.MAXIMIZE
        both = (self.inner, self.run.headline)
        return difference(*both) if higher_is_better else difference(*reversed(both))

    def __repr__(self) -> str:
        return f"Search({str(self.folder)!r}, trial {self.winner.number}, {self.run or self.inner})"

    def lines(self) -> list[str]:
        """The result in words."""
        counts, name = self.counts(), self.winner.user_attrs["words"]
        lines = [
            f"{counts['complete'] + counts['pruned']} trials, {counts['pruned']} of them ended early",
            f"the best is trial {self.winner.number}: {described(self.winner.params)}",
            f"{name} that chose it, on inner validation images: {self.inner}",
        ]
        if self.run is None:
            return lines
        gap, best = self.optimism, self.run.folder
        chance = ": no more than chance explains" if gap.low <= 0 <= gap.high else ""
        interval = f"{gap.value:.4f} (95 % {gap.low:.4f} to {gap.high:.4f})"
        return [
            *lines,
            f"{name} on held-out images, which no trial saw: {self.run.headline}",
            f"optimism of the search (by how much the inner figure is better): {interval}{chance}",
            f"{self.folder}: trials.html, trials.csv; the trained winner: kit serve {best}",
        ]

    def counts(self) -> dict[str, int]:
        """How many trials are complete, pruned, the same as another, or failed because their process was stopped."""
        trials, counted = self.study.get_trials(deepcopy=False), finished(self.study)
        complete = sum(trial.state == TrialState.COMPLETE for trial in counted)
        same = sum(SAME_AS in trial.user_attrs for trial in trials)
        failed = sum(trial.state == TrialState.FAIL for trial in trials)
        return {"complete": complete, "pruned": len(counted) - complete, "same": same, "failed": failed}

    def figures(self) -> dict[str, Any]:
        """The result for programs."""
        return {
            "trials": self.counts(),
            "winner": {"trial": self.winner.number, "settings": self.winner.params, "recipe": self.recipe.to_json()},
            "inner": _plain(self.inner),
            "held_out": _plain(self.run.headline) if self.run else None,
            "optimism": _plain(self.optimism) if self.run else None,
            "run": str(self.run.folder) if self.run else None,
        }


def _plain(figure: Estimate) -> dict[str, float | None]:
    named = {"value": figure.value, "n": figure.n, "low": figure.low, "high": figure.high}
    return {name: value if math.isfinite(value) else None for name, value in named.items()}


def tune(
    source: str | Path | pd.DataFrame,
    recipe: Recipe | None = None,
    *,
    trials: int = 30,
    minutes: float | None = None,
    study: str | None = None,
    search: Sequence[str] | None = None,
    out: str | Path | None = None,
    examples: bool = True,
    onnx: bool = True,
    **options: Any,
) -> Search:
    """Search for the best settings of a recipe, and train the winner; returns the `Search`.

    Settings that `recipe` leaves at their defaults are searched (search: the names of some of them, see
    `kit.scale.space`); others are fixed. trials: of all processes together; minutes: no trial starts after them. study:
    the URL of a database (PostgreSQL, MySQL), for processes on several hosts; by default a file in `out`, which is by
    default runs/tune-NAME. A second call with the same `out` or study goes on with it, or joins while it runs. The
    process that ends last trains the winner. source, examples, onnx: as in `fine_tune`; options: fields of `Recipe`.
    Raises `KitError`: `DataError` for a study of other images, `RecipeError` for one of other settings.
    """
    check_limits(trials, minutes)
    changes, others = divide(options)
    if others:
        problem = f"{', '.join(others)} cannot be given to a search: a run could not be made again from its recipe"
        raise RecipeError(problem, fix="leave it out, or search in your own code with Optuna")
    given = replace(recipe or Recipe(), **changes)
    folder = study_folder(source, out)
    url = database_url(study) if study else f"sqlite:///{folder.absolute() / STUDY}"
    with ONE_AT_A_TIME, quiet_optuna():
        base, space = search_space(given, search)
        table = checked_table(source, given)
        facts = {
            "table": fingerprint(table),
            "recipe": base.to_json(),
            "space": space,
            "here": [" ".join(pair) for pair in networks_here()],
        }
        rows = inner_split(table, base)
        if not study:
            folder.mkdir(parents=True, exist_ok=True)
        is_rate = of(base.task).is_rate
        with database(url):
            opened, attempts = open_study(
                url, folder.name, facts, maximise=not is_rate, seed=base.seed, first=starting_points(base, space)
            )
            space = opened.user_attrs[FACTS]["space"]
            inner = rows["split"].value_counts()
            done = f"{len(finished(opened))} of {trials} trials are done"
            say(f"study {opened.study_name} in {shown(url)}: {done}; searched: {', '.join(space)}")
            say(f"each trial trains on {inner['train']} images and is measured on {inner['valid']}")
            try:
                with Signals().handled():
                    run_trials(opened, base, space, rows, trials, minutes)
                winner = best_trial(opened)
                found = Search(folder, opened, recipe_of(base, winner.params), winner, inner_figure(winner), None)
                return with_winner(found, attempts, partial(run_of_winner, found, source, examples, onnx))
            except (KeyboardInterrupt, Terminated):
                say(f"\nstopped after {len(finished(opened))} trials; {best_so_far(opened)}")
                say("to go on: the same command again")
                raise


def check_limits(trials: int, minutes: float | None) -> None:
    """Raise `RecipeError` for a number of trials or minutes that no search can have."""
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise RecipeError(f"trials={trials!r} is not a whole number from 1", fix="trials=30 is usual")
    number = isinstance(minutes, int | float) and not isinstance(minutes, bool) and math.isfinite(minutes)
    if minutes is not None and not (number and minutes > 0):
        raise RecipeError(f"minutes={minutes!r} is not a number above 0", fix="minutes=20, or leave it out")


def study_folder(source: Any, out: str | Path | None) -> Path:
    """The folder of a search. Raises `OutputError` where it has other content."""
    name = Path(str(source)).resolve().name if isinstance(source, str | Path) else "table"
    folder = Path(out) if out else Path("runs") / re.sub(r"[^\w.-]+", "-", f"tune-{name}")
    if folder.is_file():
        raise OutputError(f"{folder} is a file; a folder was expected", fix="choose another --out")
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(name for name in inside - OURS if not name.endswith(PARTIAL))
    if others:
        problem = f"{folder} holds other files than those of a search: {some_of(others)}"
        raise OutputError(problem, fix="choose another --out")
    return folder


def fingerprint(table: pd.DataFrame) -> str:
    """A SHA-256 of the images of a table, their labels and their sides of the split. Paths, which differ between hosts,
    are not in it."""
    rows = sorted(map(repr, zip(table["sha256"], table["label"].astype(str), table["split"], strict=True)))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def inner_split(table: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The training images of a table, with a fifth of them as validation images. Raises `DataError` for too few."""
    rows = table[table["split"] == "train"].reset_index(drop=True)
    strata = training_of(recipe.task).strata(rows["label"].tolist())
    fold = inner_folds(rows.assign(label=strata), FOLDS, recipe.seed)
    if not (fold == 0).any():
        raise DataError(f"{len(rows)} training images are too few to hold some out", fix="more images")
    rows["split"] = ["valid" if number == 0 else "train" for number in fold]
    rows.attrs |= table.attrs
    return rows


def run_trials(
    study: optuna.Study, base: Recipe, space: Space, rows: pd.DataFrame, trials: int, minutes: float | None
) -> None:
    """Run trials until so many have ended, in this process and others, or until this process has no more time."""

    def objective(trial: optuna.Trial) -> float:
        with as_failure(study, trial):
            values = suggest(trial, base, space)
            if same := same_as(study, values):
                trial.set_user_attr(SAME_AS, same.number)
                raise optuna.TrialPruned
            try:
                return measure(trial, recipe_of(base, values), rows)
            except UNSUITABLE as error:
                trial.set_user_attr("because", first_line(error))
                raise optuna.TrialPruned(first_line(error)) from error

    def told(study: optuna.Study, trial: FrozenTrial) -> None:
        done = finished(study)
        if SAME_AS not in trial.user_attrs:
            say(f"trial {trial.number} ({len(done)} of {trials}): {outcome(trial)}: {described(trial.params)}")
        if len(done) >= trials or len(study.get_trials(deepcopy=False)) >= REPEATS * trials:
            study.stop()

    fail_dead_trials(study)
    if len(finished(study)) < trials:
        seconds = None if minutes is None else 60 * minutes
        study.optimize(objective, timeout=seconds, callbacks=[told], gc_after_trial=True)


def same_as(study: optuna.Study, values: dict[str, Any]) -> FrozenTrial | None:
    """A finished trial with the same settings: on a CPU its result would be the same."""
    return next((trial for trial in finished(study) if trial.params == values), None)


def outcome(trial: FrozenTrial) -> str:
    """What came out of a trial, in words."""
    seconds = f" ({trial.duration.total_seconds():.0f} s)"
    if trial.state == TrialState.PRUNED:
        return trial.user_attrs.get("because", "pruned") + seconds
    return f"{trial.user_attrs['words']} {trial.value:.4f}{seconds}"


def measure(trial: optuna.Trial, recipe: Recipe, rows: pd.DataFrame) -> float:
    """Train with a recipe on the training images of `rows`, and return the main figure on its validation images."""
    recipe = replace(recipe, tta=0, log="none")
    train.seed_everything(recipe.seed)
    learn = model.learner(data.blocks(recipe).dataloaders(rows), recipe)
    history = train.History(quiet=True)
    train.fine_tune(learn, recipe, cbs=[Pruning(trial, history)], history=history)
    result = evaluated(learn, learn.dls.valid.items)
    if result is None or not math.isfinite(result.headline.value):
        raise TrainingError("the images of this trial have no figure", fix="more validation images")
    if len(history.rows) == 1:
        trial.report(history.rows[0][learn.metrics[0].name], 0)
    trial.set_user_attr("figure", [result.headline.n, result.headline.low, result.headline.high])
    trial.set_user_attr("loss", float(result.predictions["loss"].mean()))
    trial.set_user_attr("words", result.words)
    return result.headline.value


class Pruning(Callback):
    """Reports the first metric of each epoch to a trial, that of the trained head as epoch 0, and ends a trial that is
    worse than the median of the others at this epoch."""

    order = 60  # after `History`

    def __init__(self, trial: optuna.Trial, history: train.History):
        super().__init__()
        self.trial, self.history = trial, history

    def before_fit(self) -> None:
        """Report the head that was trained from features."""
        if len(self.history.rows) == 1:
            self.trial.report(self._figure(), 0)

    def after_epoch(self) -> None:
        """Report, and decide whether to go on."""
        epoch = len(self.history.ends)
        self.trial.report(self._figure(), epoch)
        if self.epoch + 1 < self.n_epoch and self.trial.should_prune():
            because = f"pruned after epoch {epoch}"
            self.trial.set_user_attr("because", because)
            raise optuna.TrialPruned(because)  # fastai reads the argument

    def _figure(self) -> float:
        return self.history.rows[-1][self.learn.metrics[0].name]


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The trial with the best inner figure; of equal ones that with the lowest loss. `TrainingError` without any."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        others = study.get_trials(deepcopy=False)
        because = next((trial.user_attrs["because"] for trial in others if "because" in trial.user_attrs), "no time")
        problem = f"none of {len(others)} trials gave a result: {because}"
        raise TrainingError(problem, fix="more --minutes or --trials, or other settings")
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    return min(complete, key=lambda trial: (sign * trial.value, trial.user_attrs["loss"], trial.number))


def inner_figure(trial: FrozenTrial) -> Estimate:
    """The figure of a trial on the inner validation images, with its interval."""
    return Estimate(trial.value, *trial.user_attrs["figure"])


def best_so_far(study: optuna.Study) -> str:
    """The best trial until now, in words."""
    try:
        best = best_trial(study)
    except TrainingError:
        return "none has a result yet"
    return f"the best is trial {best.number}, {outcome(best)}: {described(best.params)}"


def with_winner(found: Search, attempts: optuna.Study, train_winner: Callable[[], Run]) -> Search:
    """The search with its winner, trained as a normal run and measured on the held-out images; results are written.

    Where another process does so, the search is returned without a run. attempts: the study of the winner, in which the
    first process that is still running has the right to train it.
    """
    if running := running_elsewhere(found.study):
        say(f"\n{running} still runs: the process that ends last trains the winner; or, later, the same command again")
        return found
    done = []

    def objective(trial: optuna.Trial) -> float:
        with as_failure(attempts, trial):
            ended = attempts.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if ended or running_elsewhere(attempts, before=trial.number):
                raise optuna.TrialPruned
            say("\n".join(["", *found.lines(), "", "the winner is trained on all training images:"]))
            run = train_winner()
            done.append(replace(found, run=run))
            write_results(done[0])
            trial.set_user_attr("folder", str(run.folder.absolute()))
            return run.headline.value if math.isfinite(run.headline.value) else 0.0

    attempts.optimize(objective, n_trials=1)
    if not done:
        say("\nanother process trains the winner")
    return done[0] if done else found


def run_of_winner(found: Search, source: Any, examples: bool, onnx: bool) -> Run:
    """Train the winner into best/; an attempt that was stopped goes on from its checkpoint. Raises `DataError` where
    images were changed since the search began, because another split could hold out images that trials have seen."""
    best = found.folder / BEST
    if fingerprint(data.table(source, **data.table_args(found.recipe))) != found.study.user_attrs[FACTS]["table"]:
        problem = "images or labels were changed while the search ran, so that the held-out images may be others now"
        raise DataError(problem, fix=f"restore them, and give the same command again; or {OTHER}")
    if (best / CHECKPOINT / JOB).is_file():
        return resume(best, source=source if isinstance(source, pd.DataFrame) else None)
    found.folder.mkdir(parents=True, exist_ok=True)
    return fine_tune(source, found.recipe, out=best, examples=examples, onnx=onnx)


def write_results(found: Search) -> None:
    """Write tune.json, trials.csv, trials.html and pictures into the folder of a search with a run."""
    write_json(found.folder / "tune.json", found.figures())
    write_text(found.folder / "trials.csv", found.study.trials_dataframe().to_csv(index=False))
    write_report(found.folder, found.study, found.lines(), found.run.evaluation.words)
