"""What transfer is worth: kit's defaults, plain fastai and a logistic regression, on several data sets and weights.

python tests/bench/transfer.py --images PETS --cifar CIFAR          # CIFAR: a folder of ten folders of photos
python tests/bench/transfer.py --images PETS --set breeds --weights lite0 --recipe epochs=3

Each set is cut into five folds; each way predicts every image once, by a network that did not train on it. The ways get
the same folds and so are compared in pairs: the difference of error rates with its 95 % interval, and McNemar's p.
"fastai" is fastai's `fine_tune` at its own rates, in fp32, on files that two worker processes decode (the same weights
in every bit as a plain fastai script: tests/train/test_phases.py). "logistic" is scikit-learn's logistic regression
with its default strength on standardised features of the same body. Seconds are of one fold on average, from the table
to the predictions; kit's own features are not in its cache when it starts, in the first fold.

Every fold that is done is a line of --out, and is not done again: the command may be stopped and goes on.
"""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from bundles import fields

from kit import Recipe, data, evaluate, model, train
from kit.cli.script import script
from kit.intervals import paired, wilson
from kit.model.build import features_of
from kit.train.transfer import targets_of

FOLDS, PHOTOS_A_CLASS, SEED = 5, 50, 1
OUT = Path(tempfile.gettempdir()) / "transfer.jsonl"
WAYS = ("kit", "fastai", "logistic")
WEIGHTS = {
    "lite0": {"arch": "tf_efficientnet_lite0"},
    "lite2": {"arch": "tf_efficientnet_lite2"},
    "bundled": {"arch": "resnet18", "weights": "bundled"},
}
PLAIN = {"layers": "whole", "cache": "none", "precision": "fp32", "workers": 2, "rate": 2e-3, "lr_mult": 100.0}


def sets(images: Path | None, cifar: Path | None) -> dict[str, tuple]:
    """The source of each set that is there, and what its recipe says."""
    found: dict[str, tuple] = {"drawings": ("sample", {"label": "is_cat", "size": 128})}
    if images:
        found["cat or dog"] = (images, {"label": "is_cat"})
        found["breeds"] = (images, {"label": r"^(.+)_[0-9]+"})
    if cifar:
        folders = sorted(path for path in cifar.iterdir() if path.is_dir())
        rows = [(str(path), one.name) for one in folders for path in sorted(one.iterdir())[:PHOTOS_A_CLASS]]
        found["cifar"] = (pd.DataFrame(rows, columns=["path", "label"]), {})
    return found


def by_kit(fold: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """Which validation images kit gets wrong with this recipe."""
    train.seed_everything(recipe.seed)
    learn = model.learner(data.blocks(recipe).dataloaders(fold), recipe)
    train.fine_tune(learn, recipe, history=train.History(quiet=True))
    return ~evaluate.evaluate(learn).predictions["correct"].to_numpy()


def by_logistic(fold: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """Which validation images scikit-learn's logistic regression gets wrong."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    learn = model.learner(data.blocks(recipe).dataloaders(fold), replace(recipe, layers="head"))
    train_rows, valid_rows = learn.dls.train_ds.items, learn.dls.valid_ds.items
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    head.fit(features_of(learn, train_rows), targets_of(learn, train_rows))
    return head.predict(features_of(learn, valid_rows)) != targets_of(learn, valid_rows)


def main(
    images: Annotated[Path | None, typer.Option(help="a folder of photos in Oxford Pets' names")] = None,
    cifar: Annotated[Path | None, typer.Option(help="a folder of CIFAR-10's ten folders")] = None,
    chosen: Annotated[list[str], typer.Option("--set", help="sets; by default all that are there")] = [],  # noqa: B006
    weights: Annotated[list[str], typer.Option(help=f"of: {', '.join(WEIGHTS)}")] = ["lite0"],  # noqa: B006
    ways: Annotated[list[str], typer.Option("--way", help=f"of: {', '.join(WAYS)}")] = list(WAYS),  # noqa: B006
    changes: Annotated[list[str], typer.Option("--recipe", help="for kit: a field, NAME=VALUE")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="where each fold is kept")] = OUT,
):
    """Print a table: a row for each set, weights and way."""
    done = {row["key"]: row for row in map(json.loads, out.read_text().splitlines())} if out.is_file() else {}
    print("| set | weights | way | error | seconds a fold | kit minus this |\n|---|---|---|---|---|---|")
    for name, (source, told) in sets(images, cifar).items():
        if chosen and name not in chosen:
            continue
        for start in weights:
            recipe = Recipe(seed=SEED, **WEIGHTS[start], **told)
            table = data.table(source, **data.table_args(recipe))
            wrong: dict[str, np.ndarray] = {}
            for way in ways:
                changed = fields(changes) if way == "kit" else {}
                wrong[way], seconds = of_all_folds(table, replace(recipe, **changed), way, (name, start), done, out)
                against = "" if way == "kit" or "kit" not in wrong else str(paired(wrong[way], wrong["kit"]))
                rate = wilson(int(wrong[way].sum()), len(table))
                print(f"| {name} | {start} | {way} | {rate} | {seconds:.1f} | {against} |", flush=True)


def of_all_folds(table: pd.DataFrame, recipe: Recipe, way: str, key: tuple, done: dict, out: Path) -> tuple:
    """Which images of the table one way gets wrong, and its mean seconds a fold."""
    wrong, seconds = np.zeros(len(table), dtype=bool), []
    for number, side in enumerate(data.folds(table, FOLDS, SEED)):
        told = " ".join([*key, way, str(number), json.dumps(recipe.to_json(), sort_keys=True)])
        if told not in done:
            fold, started = table.assign(split=side), time.perf_counter()
            if way == "logistic":
                found = by_logistic(fold, recipe)
            else:
                found = by_kit(fold, replace(recipe, **PLAIN) if way == "fastai" else recipe)
            done[told] = {"key": told, "wrong": found.tolist(), "seconds": time.perf_counter() - started}
            with out.open("a") as stream:
                stream.write(json.dumps(done[told]) + "\n")
        wrong[np.array(side) == "valid"] = done[told]["wrong"]
        seconds.append(done[told]["seconds"])
    return wrong, float(np.mean(seconds))


if __name__ == "__main__":
    script(main)
