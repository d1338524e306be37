"""Bundled weights against a random start: cat or dog on real photos, k-fold cross-validation. Run by hand.

python tests/bench/pets_folds.py FOLDER                  # photos in Oxford Pets' names
python tests/bench/pets_folds.py FOLDER --label "^(.+)_[0-9]+" --weights bundled
python tests/bench/pets_folds.py FOLDER --weights bundled --plain    # kit's quick ways against plain fastai's
python tests/bench/pets_folds.py FOLDER --weights bundled --plain --recipe progressive=true
python tests/bench/pets_folds.py FOLDER --weights bundled --usual --recipe progressive=true    # against kit without it

--plain trains each fold a second time in fp32 on files that are decoded anew, which is fastai's own training in every
bit (tests/train/test_phases.py), and compares the two on the same photos: McNemar's test and the paired interval.
--usual compares with the recipe without --recipe in the same way.

resnet18, 128 pixels, fine_tune(5, freeze_epochs=2); every photo is predicted once in each repetition by a network that
never saw it. The interval is Wilson's over the photos of one repetition; the spread is over repetitions (seeds).
"""

from dataclasses import replace
from typing import Annotated

import numpy as np
import typer
from bundles import fields

from kit import Recipe, data, evaluate, model, train
from kit.cli.script import script
from kit.intervals import paired, wilson

RECIPE = Recipe(
    label="is_cat", size=128, epochs=5, freeze_epochs=2, batch=16, workers=0, layers="whole", arch="resnet18"
)


def wrong_of_all(table, recipe: Recipe, count: int) -> np.ndarray:
    """Whether each row of the table is predicted wrongly by the one network of `count` that did not train on it."""
    wrong = np.zeros(len(table), dtype=bool)
    for side in data.folds(table, count, recipe.seed):
        fold = table.assign(split=side)
        train.seed_everything(recipe.seed)
        learn = model.learner(data.blocks(recipe).dataloaders(fold), recipe)
        train.fine_tune(learn, recipe)
        result = evaluate.evaluate(learn).predictions.set_index("path")
        held = np.array(side) == "valid"
        wrong[held] = ~result.loc[table["path"][held], "correct"].to_numpy()
    return wrong


def compared(table, recipe: Recipe, count: int, wrong: np.ndarray) -> np.ndarray:
    """The errors of another recipe on the same folds, after a line that compares them with `wrong`."""
    other = wrong_of_all(table, recipe, count)
    found = paired(wrong, other)
    rate = wilson(int(other.sum()), len(other))
    print(f"  the other: {rate}; difference {found.difference}, p {found.p:.2f}", flush=True)
    return other


def main(
    folder: str,
    label: str = "is_cat",
    weights: Annotated[list[str], typer.Option()] = ["bundled", "none"],  # noqa: B006 (typer copies it)
    folds: int = 5,
    seeds: Annotated[list[int], typer.Option()] = [1, 2, 3],  # noqa: B006
    rate: float | None = None,
    lr_mult: float | None = None,
    plain: bool = False,
    usual: bool = False,
    changes: Annotated[list[str], typer.Option("--recipe", help="a field of the recipe, NAME=VALUE")] = [],  # noqa: B006
):
    """Print a line a repetition and the mean of each start."""
    table = data.table(folder, label=label)
    commonest = table["label"].value_counts(normalize=True)
    print(f"{len(table)} photos; always saying {commonest.index[0]!r}: {1 - commonest.iloc[0]:.4f}")
    for start in weights:
        rates, pairs = [], []
        for seed in seeds:
            recipe = replace(RECIPE, label=label, weights=start, seed=seed, rate=rate, lr_mult=lr_mult)
            wrong = wrong_of_all(table, replace(recipe, **fields(changes)), folds)
            rates.append(wrong.mean())
            print(f"{start}, seed {seed}: {wilson(int(wrong.sum()), len(wrong))}", flush=True)
            if plain or usual:
                other = replace(recipe, cache="none", precision="fp32", workers=2) if plain else recipe
                pairs.append((wrong, compared(table, other, folds, wrong)))
        if pairs:
            print(f"all repetitions, the difference: {paired(*map(np.concatenate, zip(*pairs, strict=True)))}")
        spread = f"from {min(rates):.4f} to {max(rates):.4f}"
        print(f"{start}: mean {np.mean(rates):.4f} of {len(seeds)} x {folds}-fold, {spread}", flush=True)


if __name__ == "__main__":
    script(main)
