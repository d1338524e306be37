"""Does the classifier know what it does not know? Real photos of cats and dogs against other things. Run by hand.

python tests/bench/ood_images.py FOLDER --cifar CIFAR10     # photos in Oxford Pets' names; CIFAR10/test/CLASS/
python tests/bench/ood_images.py FOLDER --cifar CIFAR10 --seeds 1 --seeds 2

resnet18 from the bundled weights, 128 pixels: kit trains the head on average-pooled features, then all layers for 5
epochs where a trial says that is better. AUROC: how often an unknown image scores higher than a validation image. The
shrunk photos are the validation images themselves, made soft: they should be flagged about as often as the sharp ones.
Then the calibration of the same network on the same validation images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from PIL import Image
from sklearn.datasets import load_digits

from kit import Recipe, data, evaluate, model, train
from kit.bundle.engines import torch_engine
from kit.cli.script import script
from kit.data.images import open_image, prepare_image
from kit.evaluate.calibration import calibrate
from kit.evaluate.ood import fit
from kit.intervals import wilson
from kit.model.build import spec_of

RECIPE = Recipe(label="is_cat", weights="bundled", size=128, batch=16, epochs=5, freeze_epochs=2, workers=0)
VEHICLES = ("airplane", "automobile", "ship", "truck")
ANIMALS = ("bird", "deer", "frog", "horse")
SIDE = 128


class Outputs(NamedTuple):
    """Of n images: features (n, f), probabilities (n, classes) and logits (n, classes)."""

    features: np.ndarray
    probabilities: np.ndarray
    logits: np.ndarray


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """The share of pairs in which the unknown scores higher, ties counted half (Mann and Whitney, 1947)."""
    higher = (unknown[:, None] > known).mean()
    return float(higher + (unknown[:, None] == known).mean() / 2)


def fine_tuned(table, recipe: Recipe):
    train.seed_everything(recipe.seed)
    learn = model.learner(data.blocks(recipe).dataloaders(table), recipe)
    train.fine_tune(learn, recipe)
    return learn


def outputs(learn, sources: list) -> Outputs:
    rules = spec_of(learn).image_rules()
    engine = torch_engine(learn.model, rules, learn.dls.device)
    parts = [sources[first : first + 32] for first in range(0, len(sources), 32)]
    answers = [engine(np.stack([prepare_image(source, rules) for source in part])) for part in parts]
    features = np.concatenate([answer.features for answer in answers])
    head = learn.model[1][2:].eval()
    with torch.inference_mode():
        logits = head(torch.from_numpy(features).to(learn.dls.device)).cpu().numpy()
    return Outputs(features, np.concatenate([answer.outputs for answer in answers]), logits)


def softened(path: str, side: int) -> Image.Image:
    """The photo shrunk until its shorter side has `side` pixels, and enlarged again."""
    photo = open_image(path, SIDE)
    scale = side / min(photo.size)
    small = photo.resize([max(1, round(length * scale)) for length in photo.size], Image.Resampling.LANCZOS)
    return small.resize(photo.size, Image.Resampling.BICUBIC)


def digits(count: int) -> list[Image.Image]:
    """Digits written by hand, 8 x 8, enlarged; every other one dark on light."""
    drawn = (load_digits().images[:count] / 16 * 255).astype(np.uint8)
    drawn[1::2] = 255 - drawn[1::2]
    return [Image.fromarray(digit).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for digit in drawn]


def noise(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return [Image.fromarray(image) for image in pixels]


def photos(cifar: Path, classes: tuple[str, ...], count: int) -> list[Path]:
    return [path for name in classes for path in sorted((cifar / "test" / name).iterdir())[: count // len(classes)]]


def unknown_sets(cifar: Path, count: int) -> dict[str, list]:
    return {
        "vehicles": photos(cifar, VEHICLES, count),
        "digits": digits(count),
        "noise": noise(count // 2),
        "animals": photos(cifar, ANIMALS, count),
    }


def known_sets(valid: list[str], cifar: Path, count: int) -> dict[str, list]:
    soft = {f"photos at {side}": [softened(path, side) for path in valid] for side in (48, 32)}
    return soft | {"CIFAR pets": photos(cifar, ("cat", "dog"), count)}


def scorers(fitted: Outputs, labels: np.ndarray, valid: Outputs) -> dict:
    """Name -> (a function from Outputs to scores, the threshold or None)."""
    found = {}
    detector = fit(fitted.features, labels, valid.features)
    found["mahalanobis"] = (lambda images: detector.scores(images.features), detector.threshold[0])
    found["energy"] = (lambda images: -np.log(np.exp(images.logits.astype(np.float64)).sum(1)), None)
    found["max probability"] = (lambda images: -images.probabilities.max(1), None)
    return found


def report(folder: str, recipe: Recipe, cifar: Path, count: int) -> None:
    table = data.table(folder, label=recipe.label, seed=recipe.seed)
    learn = fine_tuned(table, recipe)
    training, held = (table[table["split"] == side] for side in ("train", "valid"))
    fitted, valid = outputs(learn, list(training["path"])), outputs(learn, list(held["path"]))
    others = {name: outputs(learn, images) for name, images in unknown_sets(cifar, count).items()}
    known = {name: outputs(learn, images) for name, images in known_sets(list(held["path"]), cifar, count).items()}
    print("| method | " + " | ".join(others) + " | vehicles, photos at 32 |")
    print("|---" * (len(others) + 2) + "|")
    methods = scorers(fitted, training["label"].to_numpy(), valid)
    for name, (score, _) in methods.items():
        figures = [auroc(score(valid), score(images)) for images in others.values()]
        figures.append(auroc(score(known["photos at 32"]), score(others["vehicles"])))
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")
    for name, (score, threshold) in methods.items():
        for what, images in {"validation": valid, **known, **others}.items() if threshold is not None else ():
            flagged = score(images) > threshold
            print(f"flagged by {name}: {what} {wilson(int(flagged.sum()), len(flagged))}")
    vocab = [str(label) for label in learn.dls.vocab]
    truth = np.array([vocab.index(label) for label in held["label"]])
    print("error rate", evaluate.evaluate(learn).error_rate)
    print(calibrate(valid.probabilities, truth), flush=True)


def main(
    folder: str,
    cifar: Annotated[Path, typer.Option()],
    seeds: Annotated[list[int], typer.Option()] = [42],  # noqa: B006 (typer copies it)
    count: int = 400,
):
    """Print the tables for each seed."""
    for seed in seeds:
        print(f"\nseed {seed}")
        report(folder, replace(RECIPE, seed=seed), cifar, count)


if __name__ == "__main__":
    script(main)
