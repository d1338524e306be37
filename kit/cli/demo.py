"""kit demo: train, evaluate and predict on the drawn sample in about half a minute, without network."""

import time
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Offline
from kit.console import say
from kit.manifest import EXAMPLES
from kit.recipe import Recipe

Out = Annotated[Path | None, typer.Option(help="the new run folder; default runs/NAME")]
RECIPE = Recipe(label="is_cat", arch="tf_efficientnet_lite0", layers="head", size=256, valid=0.25, workers=0)


def demo(out: Out = None, offline: Offline = False) -> None:
    """Train a head on the features of a pretrained network, on drawn cats and dogs, and show the result."""
    from kit.data.datasets import sample
    from kit.pipeline import fine_tune

    started = time.perf_counter()
    say("Training a head on features of EfficientNet-Lite0 (ImageNet weights) to tell drawn cats from dogs\n")
    run = fine_tune(sample(), RECIPE, out=out)
    say("\n".join(["", *run.lines(), f"what it gets most wrong: {run.folder}/pictures/top_losses.png"]))
    print(f"error_rate {run.error_rate} after {time.perf_counter() - started:.0f} s")
    example = min((run.bundle / EXAMPLES).iterdir())
    say("\nCommands to try next:")
    say(f"  kit serve {run.folder}             (the model as a web page)")
    say(f"  kit predict {run.folder} {example}")
    say("  kit check FOLDER                 (your own images, one folder for each class)")
    say("  kit fine-tune FOLDER             (train on them)")
