"""kit explain RUN: one training step of a finished run, computed again by hand, as a page."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="the folder of a finished run")]
Step = Annotated[int, typer.Option(help="the number of a batch, from 1, over all phases")]
Out = Annotated[Path | None, typer.Option(help="the page; default RUN/explain-STEP.html, with a link in report.html")]


def explain(run: Run, step: Step = 1, out: Out = None) -> None:
    """Compute one training step of RUN again by hand, compare it with PyTorch's, and write a page that shows it.

    The run is trained again until that step, so images, packages and machine must be those of the run. Where the head
    alone was trained from features, the steps are those of logistic regression by hand.
    """
    from kit.explain import explain as explain_run

    print(explain_run(run, step, out))
