"""kit convert EXPORT OUT: convert a learner exported by fastai to a bundle. Only this command opens a pickle."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Columns, Labels
from kit.console import say
from kit.errors import BundleError
from kit.files import sha256

Export = Annotated[Path, typer.Argument(help="the file written by learn.export(), for example export.pkl")]
Out = Annotated[Path, typer.Argument(help="the new folder of the bundle")]
Images = Annotated[str, typer.Option(help="labelled images on which the bundle is compared with EXPORT and evaluated")]
Trust = Annotated[
    bool,
    typer.Option("--trust-pickle", help="open EXPORT, which runs any code in it; only if you trust who made it"),
]
Label = Annotated[str, typer.Option(help="how labels are found; see kit fine-tune --help")]
Delimiter = Annotated[str, typer.Option(help="the separator of several classes in a label")]
Names = Annotated[str | None, typer.Option(help="new class names, in the order of the export, for example dog,cat")]
Arch = Annotated[str | None, typer.Option(help="its network, where it cannot be recognised")]
Tolerance = Annotated[float, typer.Option(help="the largest difference of a probability that is accepted")]


def convert(
    export: Export,
    out: Out,
    images: Images,
    trust_pickle: Trust = False,
    label: Label = "folder",
    labels: Labels = None,
    targets: Columns = None,
    delimiter: Delimiter = ";",
    names: Names = None,
    arch: Arch = None,
    tolerance: Tolerance = 1e-4,
) -> None:
    """Convert EXPORT, a fastai learner, to the bundle OUT, and check on --images that it predicts the same."""
    if not export.is_file():
        raise BundleError(f"{export} is not a file", fix="give the file that learn.export() wrote")
    print(f"{export}: SHA-256 {sha256(export)}", flush=True)
    if not trust_pickle:
        problem = f"{export} is a pickle: opening it runs whatever code is in it"
        raise BundleError(problem, fix="if you know who made this very file: --trust-pickle")
    from kit.bundle.convert import convert as convert_export  # torch and fastai, which take seconds
    from kit.bundle.convert import read_export
    from kit.data.sources import labelled_images, targets_of

    classes = [name.strip() for name in names.split(",")] if names else None
    exported = read_export(export, classes, arch)
    how = targets_of(replace(exported.spec.recipe, targets=targets, delimiter=delimiter))
    rows = labelled_images(images, label=label, labels=labels, targets=how)
    folder, proof = convert_export(exported, out, rows, tolerance=tolerance)
    print(proof)
    say(f"{folder}: a bundle; measured on your images, which the export may have been trained on")
