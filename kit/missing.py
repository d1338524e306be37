"""Images that vanish or change while a run reads them, for example because their drive is gone, cost only themselves.

learn = without_vanished(table, recipe, train_on); result = evaluated(learn, learn.dls.valid.items)
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from kit import data, evaluate, processes
from kit.console import say
from kit.data.scan import CHANGED
from kit.data.sources import MAX_BROKEN_SHARE
from kit.errors import DataError, ImageError, KitError, some_of
from kit.evaluate.result import Result
from kit.files import write_text
from kit.recipe import Recipe

if TYPE_CHECKING:
    from fastai.vision.all import Learner

    from kit.train.history import History

Value = TypeVar("Value")
UNREADABLE = (ImageError, RuntimeError)  # a worker process of a DataLoader raises RuntimeError
CONNECT = "make them readable again, for example connect their drive"


def changes(table: pd.DataFrame) -> dict[str, str]:
    """How images of a table vanished or changed since they were scanned, by path."""
    return data.changes(table["path"].tolist(), table["sha256"].tolist())


def without_vanished(table: pd.DataFrame, recipe: Recipe, train_on: Callable[[pd.DataFrame], Value]) -> Value:
    """The result of `train_on(table)`; called again with the other images where some vanished before it decoded them.

    Raises `DataError` where too many vanished, and what `train_on` raised where an image has other content now, or
    where several processes train, which end together.
    """
    while True:
        try:
            return train_on(table)
        except UNREADABLE as error:
            found = changes(table)
            if not found or CHANGED in found.values() or processes.count() > 1:
                raise
            rest = table[~table["path"].isin(found)]
            problem = f"{len(found)} of {len(table)} images vanished during the run: {named(found)}"
            errors = data.check(rest, recipe.fixed_batch).errors
            if errors or len(found) > MAX_BROKEN_SHARE * len(table):
                raise DataError("; ".join([problem, *errors]), fix=CONNECT) from error
            say(f"note: {problem}; training starts without them")
            table = rest


def evaluated(learn: "Learner", rows: pd.DataFrame) -> Result | None:
    """The result of a learner for rows of a table: for all whose features or decoded pixels are known, or else for
    those that can still be read; None where there is none."""
    left = None
    while left is None or len(left):
        try:
            return evaluate.evaluate(learn, left)
        except UNREADABLE:
            found = changes(rows)
            if not found or processes.count() > 1:
                raise
            left = rows[~rows["path"].isin(found)]
    return None


def evaluate_views(learn: "Learner", result: Result | None, views: int) -> Result | None:
    """`evaluate.evaluate_views`, which opens the files of all validation images; None where some are missing."""
    try:
        if result is not None and result.n == len(learn.dls.valid_ds):
            return evaluate.evaluate_views(learn, result, views)
    except UNREADABLE:
        if not changes(learn.dls.valid.items):
            raise
    if views:
        say("note: no test-time augmentation, because validation images are missing")
    return None


def saved(save: Callable[[Result], Path], result: Result, table: pd.DataFrame) -> tuple[Path, Result, dict[str, str]]:
    """What `save(result)` returns, the result, which knows the images that cannot be shown, and how these changed."""
    while True:
        found = changes(table)
        result = replace(result, missing=frozenset(found))
        try:
            return save(result), result, found
        except (KitError, OSError, RuntimeError):
            if changes(table) == found:
                raise


def unmeasured(folder: Path, learn: "Learner", history: "History") -> DataError:
    """The error of a run that has no image left to measure; weights and history are written into its folder before."""
    from kit.bundle.write import write_weights  # torch, which takes seconds

    write_text(folder / "history.csv", history.table().to_csv(index=False, lineterminator="\n"))
    write_weights(learn.model, folder / "weights.safetensors", {})
    problem = f"no validation image can be read any more; the weights are in {folder / 'weights.safetensors'}"
    return DataError(problem, fix=f"{CONNECT}, and train again; or load them with safetensors.torch.load_model")


def named(found: Mapping[str, str]) -> str:
    """The first of the changes, for a message."""
    return some_of([f"{path} {change}" for path, change in found.items()], 3)
