"""k-fold cross-validation: every image is predicted once, by a network that never saw it or a copy of it.

print(cross_validate("photos", epochs=3, folds=5).error_rate)        # kit fine-tune photos --epochs 3 --folds 5

With few images one validation set says little: a fifth of 370 photos leaves the error rate open by 7 points, all of
them by 3. The price is a training a fold. The networks are thrown away; train the one to keep without `folds`.
"""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit import data, model, processes, train
from kit.console import emit, say
from kit.data.audit import check
from kit.errors import DataError, KitError, RecipeError, first_line, some_of
from kit.evaluate.pictures import as_html
from kit.evaluate.result import Result
from kit.files import reserved
from kit.intervals import Estimate
from kit.missing import CONNECT, changes, evaluated, without_vanished
from kit.pipeline import ONE_AT_A_TIME, checked_table, divide
from kit.recipe import Recipe
from kit.runs import Run, chosen_json, command, lost, run_folder, write_results
from kit.tasks import of
from kit.tasks.training import training_of

FEWEST, MOST = 2, 100
ROOM = 10_000_000  # bytes of pictures, report and tables


@dataclass(frozen=True)
class CrossValidation:
    """What the folds found. table: the images, with the fold that validates each; evaluation: the out-of-fold
    predictions of all of them; folds: the headline of each fold; seconds: of all; caveats: what to read them with."""

    folder: Path
    recipe: Recipe
    table: pd.DataFrame
    evaluation: Result
    folds: list[Estimate]
    seconds: float
    caveats: list[str]

    @property
    def headline(self) -> Estimate:
        """The one figure of the task on all images: the error rate, F1, or R2."""
        return self.evaluation.headline

    @property
    def error_rate(self) -> Estimate:
        """The share of all images that are wrong, each predicted by the network that never saw it; 95 % Wilson."""
        return self.evaluation.error_rate

    def __repr__(self) -> str:
        return f"CrossValidation({str(self.folder)!r}, {self.evaluation.name}={self.headline}, {len(self.folds)} folds)"

    def _repr_html_(self) -> str:
        pictures = as_html(sorted((self.folder / "pictures").glob("*.png")))
        return f"<p><b>{self.evaluation.words} {self.headline}</b>, {len(self.folds)} folds</p>{pictures}"

    def lines(self) -> list[str]:
        """The result in words: pooled, how the folds differ, and what to read it with."""
        kept = "no network is kept: train one on these images with kit fine-tune, without --folds"
        where = f"{self.folder}: report.html, predictions.csv, pictures ({self.seconds:.0f} s)"
        return [*self.evaluation.lines(), self.spread, *self.caveats, kept, where]

    @property
    def spread(self) -> str:
        """How the folds differ, in words."""
        rates = [fold.value for fold in self.folds]
        return f"{self.evaluation.words} of each of {len(rates)} folds: from {min(rates):.4f} to {max(rates):.4f}"


def cross_validate(
    source: str | Path | pd.DataFrame,
    recipe: Recipe | None = None,
    *,
    folds: int = 5,
    out: str | Path | None = None,
    item_tfms: Sequence | None = None,
    batch_tfms: Sequence | None = None,
    cbs: list | None = None,
    **options: Any,
) -> CrossValidation:
    """Train once for each of `folds` parts of the images, each time on the others, and measure on that part.

    Classes, or whole groups, are spread over the folds as the recipe's `split` says; no group and no copy is divided.
    Images given for testing stay out of it. The other arguments are those of `fine_tune`. Raises `DataError`.
    """
    processes.check_alone("cross-validation")
    started = time.perf_counter()
    fields, learner_options = divide(options)
    recipe = replace(recipe or Recipe(), **fields)
    check_folds(folds)
    with run_folder(source, recipe, out) as folder, ONE_AT_A_TIME:
        table = checked_table(source, recipe)
        tables = fold_tables(table, folds, recipe)
        block = data.blocks(recipe, item_tfms=item_tfms, batch_tfms=batch_tfms)
        chosen = replace(recipe, arch=model.choose_architecture(recipe.arch, recipe.weights).full_name)

        def learned(part: pd.DataFrame) -> Run:
            train.seed_everything(recipe.seed)
            learn = model.learner(block.dataloaders(part), chosen, **learner_options)
            history, log_folder = train.History(quiet=True), folder / f"fold-{len(runs) + 1}"
            train.fine_tune(learn, chosen, cbs=cbs, history=history, log_folder=log_folder)
            if (result := evaluated(learn, learn.dls.valid.items)) is None:
                raise DataError(f"no image of fold {len(runs) + 1} can be read any more", fix=CONNECT)
            # One learner is enough to tell what was chosen; five would fill the memory.
            return Run(source, folder, part, None if runs else learn, history, result, None, folder, 0.0)

        runs, stop, caveats = [], None, []
        with reserved(folder, ROOM):
            for part in tables:
                try:
                    runs.append(without_vanished(part, recipe, learned))
                except (KitError, KeyboardInterrupt) as error:
                    if not runs:
                        raise
                    stop = error
                    caveats = [f"note: only {len(runs)} of {folds} folds were trained: {first_line(stop)}"]
                    break
                result = runs[-1].evaluation
                emit("fold", fold=len(runs), folds=folds, **result.figures())
                say(f"fold {len(runs)} of {folds}: {result.words} {result.headline}")
                gc.collect()
        seconds, rates = time.perf_counter() - started, [run.headline for run in runs]
        pooled_table, result = pooled(runs, table)
        missing = changes(table)
        caveats += lost(missing, result.n, int(table["split"].isin(["train", "valid"]).sum())) + runs[0].caveats()
        doubts = of(recipe.task).doubts(result.answer_rules())
        caveats += [f"note: {doubts}"] if doubts else []
        result = replace(result, missing=frozenset(missing))
        found = CrossValidation(folder, recipe, pooled_table, result, rates, seconds, caveats)
        write(found, runs, table, {"missing": missing, "stopped": str(stop) if stop else None}, folds)
        if stop:
            say("\n".join(found.lines()))
            raise stop
        return found


def check_folds(folds: int) -> None:
    """Raise `RecipeError` for a number of folds that makes no sense."""
    if not isinstance(folds, int) or not FEWEST <= folds <= MOST:
        raise RecipeError(f"folds={folds!r} is not a whole number from {FEWEST} to {MOST}", fix="folds=5 is usual")


def fold_tables(table: pd.DataFrame, folds: int, recipe: Recipe) -> list[pd.DataFrame]:
    """The table once for each fold, with that fold's images in "valid"; test images stay what they are."""
    if table.attrs.get("split") == "given":
        fix = "leave out --folds, or put the images of train/ and valid/ together"
        raise DataError("the validation images are given, and folds choose their own", fix=fix)
    free = table["split"].isin(["train", "valid"])
    training = training_of(recipe.task)
    rows = table[free].assign(label=training.strata(table.loc[free, "label"], folds))
    parts = []
    for number, side in enumerate(data.folds(rows, folds, recipe.seed, recipe.split), 1):
        part = table.copy()
        part.loc[free, "split"] = side
        train_side = part.loc[part["split"] == "train", "label"]
        lacking = sorted(set(training.count(part["label"])) - set(training.count(train_side)))
        if lacking:
            problem = f"fold {number} of {folds} has no training image of {some_of(lacking)}"
            raise DataError(problem, fix="--split stratified, or fewer folds")
        parts.append(part)
    return parts


def pooled(runs: list[Run], table: pd.DataFrame) -> tuple[pd.DataFrame, Result]:
    """The table with the fold that predicted each image (0: none did), and all predictions in the table's order."""
    parts = [run.evaluation.predictions.assign(fold=number) for number, run in enumerate(runs, 1)]
    predictions = pd.concat(parts, ignore_index=True)
    place = {path: row for row, path in enumerate(predictions["path"])}
    predictions = predictions.iloc[[place[path] for path in table["path"] if path in place]].reset_index(drop=True)
    of_fold = dict(zip(predictions["path"], predictions["fold"], strict=True))
    fold = [of_fold.get(path, 0) for path in table["path"]]
    split = ["valid" if number else side for number, side in zip(fold, table["split"], strict=True)]
    table = table.assign(split=split, fold=fold)
    return table, replace(runs[0].evaluation, predictions=predictions, features={})


def write(found: CrossValidation, runs: list[Run], table: pd.DataFrame, further: dict[str, Any], folds: int) -> None:
    """The run folder: as that of a single training, but without a bundle. table: as it was before the folds; further:
    for result.json; folds: how many were asked for."""
    rules = found.evaluation.answer_rules()
    shown = found.evaluation.answered(rules)
    predictions = shown.predictions.assign(fold=found.evaluation.predictions["fold"].to_numpy())
    history = pd.concat([run.history.table().assign(fold=number) for number, run in enumerate(runs, 1)])
    write_results(
        found.folder,
        found.evaluation,
        found.recipe,
        chosen_json(runs[0]) | {"folds": len(runs)},
        found.evaluation.figures()
        | {
            "seconds": round(found.seconds, 2),
            "folds": [run.evaluation.figures() for run in runs],
            "metrics": found.evaluation.to_json(),
            **rules,
            **further,
        },
        {"table": found.table, "history": history, "predictions": predictions},
        shown=shown,
        command=command(runs[0].source, runs[0].recipe, folds),
        findings=[one for one in check(table, found.recipe.fixed_batch).findings if not one.of_validation],
        notes=[*found.evaluation.remarks(), found.spread, *found.caveats],
    )
