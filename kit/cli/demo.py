"""kit demo: the main job on the drawn sample, in about a minute, without network."""

import time
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Offline
from kit.console import say
from kit.manifest import EXAMPLES
from kit.recipe import Recipe

Out = Annotated[Path | None, typer.Option(help="the run folder to write, new; by default runs/NAME")]
RECIPE = Recipe(label="is_cat", weights="bundled", size=96, batch=16, epochs=8, valid=0.25, workers=0)


def demo(out: Out = None, offline: Offline = False) -> None:
    """Fine-tune a pretrained ResNet on kit's drawn cats and dogs, and show what came of it."""
    from kit.data.datasets import sample
    from kit.pipeline import fine_tune

    started = time.perf_counter()
    say("Fine-tune resnet18 (kit's own weights) on the drawn sample: cat or dog?\n")
    run = fine_tune(sample(), RECIPE, out=out)
    say("\n".join(["", *run.lines(), f"four predictions with their pictures: {run.folder}/pictures/predictions.png"]))
    print(f"error_rate {run.error_rate} after {time.perf_counter() - started:.0f} s")
    examples = sorted((run.bundle / EXAMPLES).iterdir())
    say("\nThree commands to try next:")
    say(f"  kit predict {run.folder} {examples[0]}")
    say("  kit check FOLDER                 (a folder of your own images, one folder a class)")
    say("  kit fine-tune FOLDER             (the same, on your images)")
