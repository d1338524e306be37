"""kit predict BUNDLE IMAGES...: predict files, folders and globs; a bad image gives a row with its error."""

import csv
import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli.options import Bundle, Device, Engine
from kit.console import progress, say
from kit.errors import DataError
from kit.files import atomic_path, check_parent
from kit.machine import keep_freed_memory
from kit.tasks import Prediction, Task, of
from kit.tasks.text import readable

if TYPE_CHECKING:
    from kit.bundle.predictor import Predictor

Images = Annotated[list[str], typer.Argument(help="image files, folders, and patterns like 'photos/*.jpg'")]
Out = Annotated[
    Path | None, typer.Option(help="write CSV here: path, prediction, a column for each class or number, unlike, error")
]
Top = Annotated[int, typer.Option(min=1, help="the number of classes to print for each image")]
Batch = Annotated[int, typer.Option(min=1, help="batch size")]
Precision = Annotated[
    str,
    typer.Option(help="fp32, or bf16 (by torch): less exact, faster for many images where the CPU has bf16"),
]
FEW = 16  # for more images, the engine that starts slower but computes faster is worth it
COMPARED = 8


def predict(
    bundle: Bundle,
    images: Images,
    out: Out = None,
    top: Top = 3,
    batch: Batch = 32,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "fp32",
) -> None:
    """Predict IMAGES with BUNDLE; without --out, print one line for each image."""
    from kit.bundle.read import load

    paths = list(find_images(images))
    if out:
        check_parent(out)
    many = len(paths) > FEW
    predictor = load(bundle, device, engine, many, precision)
    if precision != "fp32":
        say(difference(predictor, load(bundle, device, many=False), paths[:COMPARED], precision))
    failed = 0
    with _writer(out, predictor, top) as write, keep_freed_memory() if many else nullcontext():
        for one in progress(predictor.predict_each(paths, batch), "predict", total=len(paths)):
            failed += one.error is not None
            write(one)
    say(f"{len(paths) - failed} of {len(paths)} images predicted" + (f", written to {out}" if out else ""))
    if failed == len(paths):
        raise typer.Exit(1)


def difference(predictor: "Predictor", exact: "Predictor", paths: list[str], precision: str) -> str:
    """A sentence with the largest difference between two predictors, of `precision` and of fp32, on a few images."""
    pairs = zip(predictor.predict(paths), exact.predict(paths), strict=True)
    good = [(one, other) for one, other in pairs if one.error is None]
    answers = [(one.numbers or one.probabilities, other.numbers or other.probabilities) for one, other in good]
    gaps = [abs(one[name] - other[name]) for one, other in answers for name in exact.vocab]
    if not gaps:
        return f"{precision}: none of the first {len(paths)} images could be opened to compare it with fp32"
    what = of(exact.task).output
    text = f"{precision}: on the first {len(good)} images a {what} differs from that of fp32 by at most {max(gaps):.4f}"
    labels = [(one.label, other.label) for one, other in good if other.label is not None]
    return text + (f", and the classes differ for {sum(one != other for one, other in labels)}" if labels else "")


def find_images(names: list[str]) -> Iterator[str]:
    """Paths of images: files as given, all images below folders, matches of patterns. Raises `DataError` for none."""
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            from kit.data.folders import left_out_lines  # imported late, because most calls name files
            from kit.data.images import NOT_IMAGE, list_images

            found, others = list_images(path)
            for line in left_out_lines(other for other in others if other[1] != NOT_IMAGE).values():
                say(line)
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
def _writer(out: Path | None, predictor: "Predictor", top: int) -> Iterator[Callable[[Prediction], None]]:
    """A function that takes each prediction and prints a line, or writes a row of the CSV file `out`."""
    task, vocab = of(predictor.task), predictor.vocab
    if out is None:
        yield lambda one: print(_line(one, task, top), flush=True)
        return
    how = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with atomic_path(out) as partial, partial.open("w", **how) as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(task.columns(vocab))
        yield lambda one: rows.writerow(task.csv_line(one, vocab))


def _line(one: Prediction, task: Task, top: int) -> str:
    path = readable(one.path)
    if one.error:
        return f"{path}: error: {readable(one.error)}"
    answer = ", ".join(" ".join(part) for part in task.parts(one, top))
    return f"{path}: {answer}" + ("  (not like the training images)" if one.unlike else "")
