"""How hard the drawn sample is: what simple classifiers get wrong on held-out drawings. Run by hand.

python tests/bench/sample_baselines.py
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
HELD_OUT = 120
SEEDS = (0, 1, 2, 3, 4)
NETWORK_SEEDS = (0, 1)

Features = Callable[[Image.Image], numpy.ndarray]
Row = tuple[str, list[float]]


def read(folder: Path) -> tuple[list[Image.Image], numpy.ndarray]:
    """The drawings, and 1 for every cat: a name with a capital letter."""
    paths = sorted(folder.glob("*.jpg"))
    return [Image.open(path).convert("RGB") for path in paths], numpy.array(
        [int(path.name[0].isupper()) for path in paths]
    )


def colour_pixels(image: Image.Image) -> numpy.ndarray:
    """The drawing itself, 32 x 32 in colour."""
    return numpy.asarray(image.resize((32, 32), Image.Resampling.BOX), dtype=float).ravel()


def grey_pixels(image: Image.Image) -> numpy.ndarray:
    """The drawing itself, 64 x 64 without colour."""
    return numpy.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=float).ravel()


def joint_histogram(image: Image.Image) -> numpy.ndarray:
    """The share of every one of 8 x 8 x 8 colours."""
    steps = numpy.asarray(image, dtype=int).reshape(-1, 3) // 32
    counts = numpy.bincount(steps @ numpy.array([64, 8, 1]), minlength=512)
    return numpy.sqrt(counts / counts.sum())


def channel_histograms(image: Image.Image) -> numpy.ndarray:
    """The share of every one of 32 levels of red, of green and of blue."""
    counts = numpy.array(image.histogram(), dtype=float).reshape(3, 32, 8).sum(axis=2)
    return numpy.sqrt(counts / counts[0].sum()).ravel()


def linear_errors(features: Features, images: list[Image.Image], cats: numpy.ndarray, strength: float) -> list[float]:
    """The share of wrong answers on the held-out drawings, one for every seed of the split."""
    inputs = numpy.stack([features(image) for image in images])
    return [_linear_error(inputs, cats, strength, seed) for seed in SEEDS]


def _linear_error(inputs: numpy.ndarray, cats: numpy.ndarray, strength: float, seed: int) -> float:
    seen, unseen, known, wanted = train_test_split(inputs, cats, test_size=HELD_OUT, stratify=cats, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    return 1 - model.fit(seen, known).score(unseen, wanted)


def linear_rows(images: list[Image.Image], cats: numpy.ndarray) -> list[Row]:
    """The baselines that see no shapes: each with the regularisation that suits it best among three."""
    cases = {
        "pixels, 32 x 32 RGB": colour_pixels,
        "pixels, 64 x 64 grey": grey_pixels,
        "histogram, 8 x 8 x 8": joint_histogram,
        "histograms, 3 x 32": channel_histograms,
    }
    rows = []
    for title, features in cases.items():
        tries = [linear_errors(features, images, cats, strength) for strength in (1e-4, 1e-2, 1.0)]
        rows.append((f"logistic regression: {title}", min(tries, key=numpy.mean)))
    return rows


def network_row(folder: Path, weights: str) -> Row:
    """A fine-tuned resnet18 from the given weights, by the recipe of `kit demo`, on splits of its own."""
    from kit import data, evaluate, model, train
    from kit.cli.demo import RECIPE

    errors = []
    for seed in NETWORK_SEEDS:
        recipe = replace(RECIPE, weights=weights, seed=seed)
        train.seed_everything(seed)
        table = data.table(folder, label=recipe.label, valid=recipe.valid, seed=seed)
        learn = model.learner(data.blocks(recipe).dataloaders(table), recipe)
        train.fine_tune(learn, recipe)
        errors.append(evaluate.evaluate(learn).error_rate.value)
    return f"fine-tuned resnet18: weights {weights}", errors


def show(rows: list[Row]) -> None:
    """Print the table: errors in per cent over the splits."""
    print(f"{'wrong on held-out drawings, %':48} {'mean':>6} {'best':>6} {'worst':>6}")
    for title, errors in rows:
        mean, best, worst = 100 * numpy.mean(errors), 100 * min(errors), 100 * max(errors)
        print(f"{title:48} {mean:6.1f} {best:6.1f} {worst:6.1f}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What simple classifiers get wrong on the drawn sample.")
    parser.add_argument("--folder", type=Path, default=SAMPLE)
    folder = parser.parse_args().folder
    images, cats = read(folder)
    print(f"{len(images)} drawings, {cats.sum()} of cats; {HELD_OUT} held out, {len(SEEDS)} splits;")
    print(f"for the networks a quarter held out, {len(NETWORK_SEEDS)} splits")
    show([*linear_rows(images, cats), *(network_row(folder, weights) for weights in ("bundled", "none"))])


if __name__ == "__main__":
    main()
