"""kit predict BUNDLE IMAGES...: predict files, folders, URLs and globs; a bad image gives a row with its error."""

import glob
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli.options import Bundle, Device, Engine
from kit.console import progress, say
from kit.errors import DataError
from kit.files import check_parent, sha256
from kit.machine import keep_freed_memory
from kit.manifest import CONFIG, find_bundle
from kit.tasks import Prediction, Task, of
from kit.tasks.text import readable

if TYPE_CHECKING:
    from kit.bundle.predictor import Predictor

Images = Annotated[
    list[str],
    typer.Argument(help="image files, folders, patterns like 'photos/*.jpg', and URLs like s3://bucket/photos"),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="write FILE.csv, .jsonl or .parquet: path, prediction, a column for each class or number, unlike, error;"
        " if stopped, the same command goes on"
    ),
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
    from kit.bundle.prediction_files import Job, form_of, unfinished
    from kit.bundle.read import load

    if out:
        check_parent(out)
    form = form_of(out) if out else None
    settings = {"batch": batch, "device": device, "engine": engine, "precision": precision}
    job = Job(sha256(find_bundle(bundle) / CONFIG), images, settings, str(Path.cwd()))
    with ExitStack() as stack:
        place = out or Path(stack.enter_context(TemporaryDirectory()), "printed")
        work = stack.enter_context(unfinished(place, job, lambda: find_images(images)))
        done, total = work.done, work.job.total
        predictor = load(bundle, device, engine, total > FEW, precision)
        if precision != "fp32":
            first = list(islice(work.paths(), COMPARED))
            say(difference(predictor, load(bundle, device, many=False), first, precision))
        if total > FEW:
            stack.enter_context(keep_freed_memory())
        task, predictions = of(predictor.task), predictor.predict_each(work.paths(done), batch)
        predictions = progress(predictions, "predict", total=total - done)
        if form:
            work.write(predictions, form(task, predictor.vocab), batch)
            failed = work.failed
        else:
            failed = sum(_print(one, task, top) for one in predictions)
    where = f", written to {out}" + ("; its column error says why not the others" if failed else "") if out else ""
    say(f"{total - failed} of {total} images predicted{where}")
    if failed == total:
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
        if "://" in name or path.is_dir():
            yield from _images_of(name)
        elif glob.has_magic(name) and not path.exists():
            found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (the pattern may be absolute)
            if not found:
                raise DataError(f"no file matches {name!r}", fix="correct the pattern")
            yield from find_images(found)
        else:
            yield name


def _images_of(name: str) -> Iterator[str]:
    """The images of a folder or URL; then prints what of it is left out, but for files that are no images by name."""
    from kit.data.folders import left_out_lines  # imported late, because most calls name files
    from kit.data.listing import NOT_IMAGE, walk_images
    from kit.data.remote import is_url, walk_urls

    count, others = 0, []
    for path, reason in walk_urls(name) if is_url(name) else walk_images(Path(name).expanduser()):
        if reason is None:
            count += 1
            yield str(path)
        elif reason != NOT_IMAGE:
            others.append((path, reason))
    for line in left_out_lines(others).values():
        say(line)
    if not count:
        raise DataError(f"{name} holds no images", fix="give images, or a folder of images")


def _print(one: Prediction, task: Task, top: int) -> bool:
    """Print a line for an image; returns whether it has an error."""
    path, error = readable(one.path), one.error
    answer = f"error: {readable(error)}" if error else ", ".join(" ".join(part) for part in task.parts(one, top))
    print(f"{path}: {answer}" + ("  (not like the training images)" if one.unlike else ""), flush=True)
    return bool(error)
