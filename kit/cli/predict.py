"""kit predict BUNDLE IMAGES...: predict files, folders and globs; a bad image is a row with its error."""

import csv
import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.console import progress, say
from kit.errors import DataError
from kit.files import atomic_path, check_parent

Bundle = Annotated[Path, typer.Argument(help="a bundle's folder, or a run folder")]
Images = Annotated[list[str], typer.Argument(help="image files, folders, and globs like 'photos/*.jpg'")]
Out = Annotated[
    Path | None, typer.Option(help="write CSV here: path, prediction, probability, a column a class, unlike, error")
]
Top = Annotated[int, typer.Option(min=1, help="how many classes to print for each image")]
Batch = Annotated[int, typer.Option(min=1, help="images at a time")]
Device = Annotated[str, typer.Option(help="where to compute: auto, cpu, cuda, ...")]
Engine = Annotated[str, typer.Option(help="what computes: auto, onnx (quick to start, on the CPU) or torch")]
FEW = 64


def predict(
    bundle: Bundle,
    images: Images,
    out: Out = None,
    top: Top = 3,
    batch: Batch = 32,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Predict IMAGES with BUNDLE; without --out, one line an image is printed."""
    from kit.bundle.read import load

    paths = list(find_images(images))
    if out:
        check_parent(out)
    predictor = load(bundle, device, engine, many=len(paths) > FEW)
    failed = 0
    with _writer(out, predictor.vocab, top) as write:
        for one in progress(predictor.predict_each(paths, batch), "predict", total=len(paths)):
            failed += one.error is not None
            write(one)
    say(f"{len(paths) - failed} of {len(paths)} images predicted" + (f", written to {out}" if out else ""))
    if failed == len(paths):
        raise typer.Exit(1)


def find_images(names: list[str]) -> Iterator[str]:
    """Files as they are, folders searched in depth for images, globs expanded; a glob without a match is an error."""
    from kit.data.images import list_images

    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            found = list_images(path)[0]
            if not found:
                raise DataError(f"{name} holds no images", fix="give images, or a folder of images")
            yield from map(str, found)
        elif glob.has_magic(name) and not path.exists():
            found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (the pattern may be absolute)
            if not found:
                raise DataError(f"no file matches {name!r}", fix="correct the pattern")
            yield from find_images(found)
        else:
            yield name


@contextmanager
def _writer(out: Path | None, vocab: list[str], top: int) -> Iterator[Callable[[Any], None]]:
    """A function to call with each prediction: it prints a line, or writes a row of the CSV file `out`."""
    if out is None:
        yield lambda one: print(_line(one, top), flush=True)
        return
    with atomic_path(out) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["path", "prediction", "probability", *(f"p_{name}" for name in vocab), "unlike", "error"])
        yield lambda one: rows.writerow(_row(one, vocab))


def _row(one: Any, vocab: list[str]) -> list[str]:
    values = [f"{one.probabilities[name]:.6f}" if one.probabilities else "" for name in vocab]
    best = "" if one.probability is None else f"{one.probability:.6f}"
    unlike = "" if one.unlike is None else str(one.unlike).lower()
    return [one.path, one.label or "", best, *values, unlike, one.error or ""]


def _line(one: Any, top: int) -> str:
    if one.error:
        return f"{one.path}: error: {one.error}"
    return (
        f"{one.path}: "
        + ", ".join(f"{name} {value:.1%}" for name, value in one.top(top))
        + ("  (not like the training images)" if one.unlike else "")
    )
