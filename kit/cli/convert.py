"""kit convert EXPORT OUT: a learner that fastai exported, as a bundle; the one command that opens a pickle."""

from pathlib import Path
from typing import Annotated

import typer

from kit.console import say
from kit.errors import BundleError
from kit.files import sha256

Export = Annotated[Path, typer.Argument(help="the file that learn.export() wrote, like export.pkl")]
Out = Annotated[Path, typer.Argument(help="the bundle's folder to write, new")]
Images = Annotated[str, typer.Option(help="labelled images, to prove the bundle on and to measure it")]
Trust = Annotated[
    bool, typer.Option("--trust-pickle", help="open the file, which runs whatever code is in it: you know who made it")
]
Label = Annotated[str, typer.Option(help="how a file says its label; see kit fine-tune --help")]
Labels = Annotated[str | None, typer.Option(help="a CSV file with the columns path and label")]
Names = Annotated[str | None, typer.Option(help="what its classes are called, in its order, like dog,cat")]
Arch = Annotated[str | None, typer.Option(help="its network, where that cannot be seen")]
Tolerance = Annotated[float, typer.Option(help="how much a probability may differ")]


def convert(
    export: Export,
    out: Out,
    images: Images,
    trust_pickle: Trust = False,
    label: Label = "folder",
    labels: Labels = None,
    names: Names = None,
    arch: Arch = None,
    tolerance: Tolerance = 1e-4,
) -> None:
    """Turn EXPORT, a learner of fastai's, into the bundle OUT, and prove on IMAGES that it predicts the same."""
    if not export.is_file():
        raise BundleError(f"{export} is not a file", fix="give the file that learn.export() wrote")
    print(f"{export}: SHA-256 {sha256(export)}", flush=True)
    if not trust_pickle:
        problem = f"{export} is a pickle: opening it runs whatever code is in it"
        raise BundleError(problem, fix="if you know who made this very file: --trust-pickle")
    from kit.data.sources import labelled_images

    rows = labelled_images(images, label=label, labels=labels)
    from kit.bundle.convert import convert as convert_export  # torch and fastai, which take seconds

    classes = [name.strip() for name in names.split(",")] if names else None
    folder, proof = convert_export(export, out, rows, names=classes, arch=arch, tolerance=tolerance)
    print(proof)
    say(f"{folder}: a bundle; measured on your images, which the export may have been trained on")
