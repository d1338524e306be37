"""Predictions of any number of images as a file: CSV, JSON lines or Parquet, with the same columns and rows in order.

    answers.csv.partial/  job.json  images  000000000000-000000009984-2  000000009984-000000020000-0  ...

Rows are written in parts beside the file, and joined at the end. After a crash or kill -9 the same call goes on after
the last complete part. Memory does not grow with the number of images. `kit predict RUN FOLDER --out answers.csv`
"""

import csv
import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.console import say
from kit.errors import OutputError
from kit.files import (
    PARTIAL,
    atomic_path,
    cannot_write,
    locked,
    read_texts,
    remove_partial,
    write_json,
    write_texts,
)
from kit.tasks import Prediction, Task
from kit.tasks.base import rounded

if TYPE_CHECKING:
    import pyarrow as pa

JOB, IMAGES, UNNAMED = "job.json", "images", "unnamed"
MOST_ROWS, MOST_SECONDS = 10_000, 60.0  # of a part, after which the next one begins
Rows = Callable[[list[Prediction]], None]


class TextRows:
    """A file of text: the part `head`, and a line for each prediction. Bytes of file names that are not UTF-8 are
    escaped with a backslash."""

    def __init__(self, task: Task, vocab: list[str]):
        self.task, self.vocab = task, vocab

    @property
    def head(self) -> str:
        """What comes before the first line."""
        return ""

    @contextmanager
    def part(self, path: Path) -> Iterator[Rows]:
        """A function that writes predictions into the file of a part."""
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            yield lambda rows: stream.writelines(map(self.line, rows))

    def join(self, parts: Iterable[Path], path: Path) -> None:
        """Write all parts into one file."""
        with path.open("wb") as joined:
            joined.write(self.head.encode("utf-8", "backslashreplace"))
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)


class CSVRows(TextRows):
    """CSV in UTF-8 without a byte order mark, and paths as they are.

    The page's CSV differs in both, because it is for spreadsheets. Programs would take the mark for a part of the first
    column's name, and a path with a quote in front names no file.
    """

    @property
    def head(self) -> str:
        """The names of the columns."""
        return _csv_line(self.task.columns(self.vocab))

    def line(self, one: Prediction) -> str:
        """The cells of a row."""
        return _csv_line(self.task.csv_line(one, self.vocab))


class JSONRows(TextRows):
    """JSON lines: an object for each image, with the columns as keys."""

    def line(self, one: Prediction) -> str:
        """The object of a row."""
        row = {name: rounded(value) for name, value in self.task.row(one, self.vocab).items()}
        return json.dumps(row, ensure_ascii=False) + "\n"


class ParquetRows:
    """Parquet by pyarrow; a part is an Arrow file, and becomes a row group."""

    def __init__(self, task: Task, vocab: list[str]):
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise OutputError("Parquet needs the package pyarrow", fix="pip install pyarrow") from error
        self.task, self.vocab, self.parquet = task, vocab, parquet

    @contextmanager
    def part(self, path: Path) -> Iterator[Rows]:
        """A function that writes predictions into the file of a part."""
        import pyarrow as pa

        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, arrow_schema(self.task, self.vocab)) as writer:
            yield lambda rows: writer.write_table(arrow_table(rows, self.task, self.vocab))

    def join(self, parts: Iterable[Path], path: Path) -> None:
        """Write all parts into one file."""
        import pyarrow as pa

        with self.parquet.ParquetWriter(path, arrow_schema(self.task, self.vocab)) as writer:
            for part in parts:
                with pa.OSFile(str(part)) as file, pa.ipc.open_file(file) as reader:
                    writer.write_table(reader.read_all(), row_group_size=MOST_ROWS)


FORMS = {".csv": CSVRows, ".jsonl": JSONRows, ".parquet": ParquetRows}


def form_of(out: Path) -> type[TextRows] | type[ParquetRows]:
    """How a file of this name is written. Raises `OutputError` for other names."""
    try:
        return FORMS[out.suffix.lower()]
    except KeyError:
        raise OutputError(f"{out}: predictions are written to {', '.join(FORMS)}", fix="choose one of these") from None


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def arrow_schema(task: Task, vocab: list[str]) -> "pa.Schema":
    """The columns of predictions and their Arrow types."""
    import pyarrow as pa

    texts, special = dict.fromkeys(("path", "prediction", "error"), pa.string()), {"unlike": pa.bool_()}
    return pa.schema([(name, (texts | special).get(name, pa.float64())) for name in task.columns(vocab)])


def arrow_table(rows: Iterable[Prediction], task: Task, vocab: list[str]) -> "pa.Table":
    """Predictions as an Arrow table; bytes of file names that are not UTF-8 are escaped with a backslash."""
    import pyarrow as pa

    found = [
        {name: _utf8(value) if isinstance(value, str) else value for name, value in task.row(one, vocab).items()}
        for one in rows
    ]
    return pa.Table.from_pylist(found, schema=arrow_schema(task, vocab))


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Job:
    """What is predicted: answers of another job are not mixed with these. total: the number of images; folder: the
    working directory, to which their paths may be relative."""

    bundle: str
    images: list[str]
    settings: dict[str, Any]
    folder: str
    total: int = 0


class Unfinished:
    """The folder of a file of predictions while it is written; see `unfinished`."""

    def __init__(self, out: Path, folder: Path, job: Job):
        self.out, self.folder, self.job = out, folder, job

    def paths(self, start: int = 0) -> Iterator[str]:
        """The paths of the images, from number `start` on."""
        with (self.folder / IMAGES).open(encoding="ascii") as file:
            yield from read_texts(islice(file, start, None))

    def parts(self) -> list[Path]:
        """The complete parts in order. Raises `OutputError` where one is missing."""
        parts = sorted(self.folder.glob("[0-9]*-*-*"))
        spans = [part.name.split("-") for part in parts]
        if any(before[1] != after[0] for before, after in zip([["", "0" * 12], *spans], spans, strict=False)):
            raise OutputError(f"a part of {self.folder} is missing", fix=f"remove {self.folder}, to start again")
        return parts

    @property
    def done(self) -> int:
        """How many images are in complete parts."""
        return max((int(part.name.split("-")[1]) for part in self.parts()), default=0)

    @property
    def failed(self) -> int:
        """How many of these have an error instead of a prediction."""
        return sum(int(part.name.split("-")[2]) for part in self.parts())

    def write(self, predictions: Iterator[Prediction], form: TextRows | ParquetRows, batch: int) -> None:
        """Write the predictions that follow the parts; then join all of them, and the file has its name.

        Parts end with a batch of the predictor, so that batches after an interruption are those without one.
        """
        done = self.done
        while done < self.job.total:
            end, failed, until = done, 0, time.monotonic() + MOST_SECONDS
            with atomic_path(self.folder / UNNAMED) as partial, form.part(partial) as write:
                while rows := list(islice(predictions, batch)):
                    write(rows)
                    end, failed = end + len(rows), failed + sum(one.error is not None for one in rows)
                    if end - done >= MOST_ROWS or time.monotonic() > until:
                        break
            (self.folder / UNNAMED).rename(self.folder / f"{done:012}-{end:012}-{failed}")
            done = end
        with atomic_path(self.folder / UNNAMED) as partial:
            form.join(self.parts(), partial)
        try:
            (self.folder / UNNAMED).replace(self.out)
        except OSError as error:
            raise cannot_write(self.out, error) from error


@contextmanager
def unfinished(out: Path, job: Job, find: Callable[[], Iterable[str]]) -> Iterator[Unfinished]:
    """The folder in which `out` is written, new or left by a process that was stopped, for this process alone.

    find: the paths of the images, which are listed once. The folder is removed at the end, and where no part is
    complete. Raises `OutputError` where it holds another job.
    """
    folder = out.with_name(f"{out.name}{PARTIAL}")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    with locked(folder):
        try:
            one = Unfinished(out, folder, _listed(folder, job, find))
        finally:
            if not (folder / JOB).is_file():
                shutil.rmtree(folder)
        if one.done:
            say(f"{folder} has the answers for {one.done} of {one.job.total} images; it goes on from there")
        try:
            yield one
        except BaseException:
            if one.done:
                say(f"{folder} keeps the answers for {one.done} of {one.job.total} images; the same command goes on")
            else:
                _remove(folder)
            raise
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the folder; its job first, so that after a kill nothing goes on from the rest."""
    (folder / JOB).unlink()
    shutil.rmtree(folder)


def _listed(folder: Path, job: Job, find: Callable[[], Iterable[str]]) -> Job:
    """The job with its number of images, whose paths are listed in a file, now or before."""
    if not (folder / JOB).is_file():
        for path in folder.iterdir():  # left by a process that was killed while it listed, or removed the folder
            path.unlink()
        with atomic_path(folder / IMAGES) as partial, partial.open("w", encoding="ascii") as file:
            total = write_texts(find(), file)
        job = Job(**asdict(job) | {"total": total})
        write_json(folder / JOB, asdict(job))
        return job
    remove_partial(folder)
    before = json.loads((folder / JOB).read_text(encoding="utf-8"))
    other = [name for name, value in asdict(job).items() if name != "total" and before.get(name) != value]
    if other:
        problem = f"{folder} holds answers of a command with other {' and '.join(other)}"
        raise OutputError(problem, fix=f"repeat that command to go on, remove {folder}, or choose another --out")
    return Job(**before)
