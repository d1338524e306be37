"""What a checkpoint costs: seconds to write it, and to read it again, beside those of the epoch before it.

python tests/bench/resume.py                       # resnet18, 224 pixels, 1,000 drawn images, all layers

The last line is the share of the epoch's time.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image

import kit
from kit import data, model, train
from kit.cli.script import script
from kit.signals import Signals
from kit.train.checkpoint import checkpoints, read_checkpoint


class Timed(train.Checkpoint):
    """A checkpoint that measures how long it takes to write."""

    def save(self, *args: object) -> None:
        """Write the state, and keep the seconds that it took."""
        started = time.perf_counter()
        super().save(*args)
        self.costs.append(time.perf_counter() - started)


def main(arch: str = "resnet18", size: int = 224, images: int = 1_000, epochs: int = 3):
    """Print a line an epoch: its seconds, those of its checkpoint, and their ratio."""
    with tempfile.TemporaryDirectory(prefix="kit-bench-resume-") as place:
        folder = Path(place)
        draw(folder / "images", images, size)
        recipe = kit.Recipe(arch=arch, weights="none", layers="whole", size=size, epochs=epochs, freeze_epochs=0)
        train.seed_everything(recipe.seed)
        dls = data.blocks(recipe).dataloaders(data.table(folder / "images"))
        learn, checkpoint = model.learner(dls, recipe), Timed(folder, 1e6, Signals())
        checkpoint.costs = []
        history = train.fine_tune(learn, recipe, checkpoint=checkpoint)
        path = checkpoints(checkpoint.folder)[-1]
        started = time.perf_counter()
        read_checkpoint(path)
        read = time.perf_counter() - started
        print("| epoch, s | checkpoint, s | share |\n|---|---|---|")
        shares = []
        for row, cost in zip(history.rows, checkpoint.costs, strict=True):
            shares.append(cost / row["seconds"])
            print(f"| {row['seconds']:.1f} | {cost:.2f} | {shares[-1]:.1%} |")
        print(f"{path.stat().st_size / 1e6:.0f} MB, read in {read:.2f} s")
        print(f"{statistics.median(shares):.1%}")


def draw(folder: Path, count: int, size: int) -> None:
    """Images of two classes: noise of different grain."""
    dice = random.Random(0)
    for number in range(count):
        path = folder / ("fine", "coarse")[number % 2] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = (32, 8)[number % 2]
        Image.frombytes("RGB", (side, side), dice.randbytes(3 * side * side)).resize((size, size)).save(path)


if __name__ == "__main__":
    script(main)
