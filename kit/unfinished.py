"""Runs that are not finished: what they write before training, so that they can go on, and the list of all runs.

    runs/NAME/checkpoint/  run.json  table.csv  000012.safetensors  000013.safetensors

`kit fine-tune --resume runs/NAME` goes on from it; `kit runs` lists it.
"""

import hashlib
import json
import shlex
import shutil
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import DataError, OutputError, RecipeError, some_of
from kit.files import CHECKPOINT, atomic_folder, locked, remove_partial, write_json, write_text
from kit.recipe import Recipe, label_name

if TYPE_CHECKING:
    import pandas as pd

JOB, TABLE = "run.json", "table.csv"
COMPARED = ["path", "label", "split", "sha256"]
RESULTS = ("result.json", "report.html", "recipe.json", "table.csv", "history.csv", "predictions.csv")


@dataclass(frozen=True)
class Job:
    """The arguments of `kit.fine_tune`, as far as a file can hold them.

    given: the names of those that were given and that no file can hold, as transforms and callbacks. table_sha256: of
    the table of images, which is beside it; None before it was made.
    """

    source: str | None
    recipe: dict[str, Any]
    examples: bool
    onnx: bool
    given: list[str]
    table_sha256: str | None = None

    @classmethod
    def of(cls, source: Any, recipe: Recipe, examples: bool, onnx: bool, given: list[str]) -> "Job":
        """The job of these arguments. given: the names of Python's own."""
        if not isinstance(source, str | Path):
            source, given = None, ["source", *given]
        elif Path(source).expanduser().is_dir():
            source = Path(source).expanduser().absolute()
        name = label_name(recipe.label)
        if callable(recipe.label) and (name.startswith("__main__:") or "<l" in name):
            given = ["label", *given]
        return cls(source and str(source), recipe.to_json(), examples, onnx, given)

    def write(self, folder: Path, table: "pd.DataFrame") -> None:
        """Write the job and its table of images into a run folder."""
        path, text = folder / CHECKPOINT, as_csv(table)
        with nullcontext(path) if path.is_dir() else atomic_folder(path) as partial:
            write_text(partial / TABLE, text)
            write_json(partial / JOB, asdict(replace(self, table_sha256=sha256_of(text))))

    def arguments(self, folder: Path, given: dict[str, Any]) -> tuple[Any, Recipe]:
        """Source and recipe, with those arguments that have to be given again; `RecipeError` names what is missing."""
        missing = [name for name in self.given if name not in given]
        if missing:
            again = ", ".join(f"{name}=..." for name in missing)
            problem = f"{folder} was started in Python with {', '.join(missing)}, which no file can hold"
            raise RecipeError(problem, fix=f"kit.resume({str(folder)!r}, {again}), with the same values")
        label = {"label": given["label"]} if "label" in given else {}
        return given.get("source", self.source), Recipe.from_json(self.recipe | label)


def read_job(folder: Path) -> Job:
    """The job of a run folder. Raises `OutputError` where there is none to go on with."""
    path = folder / CHECKPOINT / JOB
    if not path.is_file():
        done = (folder / "result.json").is_file()
        problem = f"{folder} {'is finished' if done else 'holds no run'}: there is no {CHECKPOINT}/{JOB} to go on from"
        raise OutputError(problem, fix="kit runs lists the runs; a new one starts with kit fine-tune FOLDER")
    try:
        return Job(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{path} is damaged ({error})", fix="start a new run") from error


def as_csv(table: "pd.DataFrame") -> str:
    """The columns of a table that decide on a training, as in the file."""
    texts = {name: as_text(table[name]) for name in COMPARED}
    return table.assign(**texts)[COMPARED].to_csv(index=False, lineterminator="\n")


def as_text(column: "pd.Series") -> list[str]:
    """Values as text that can be written as UTF-8, which some file names are not."""
    return [str(value).encode("utf-8", "backslashreplace").decode("utf-8") for value in column]


def sha256_of(text: str) -> str:
    """The SHA-256 of a text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def same_data(job: Job, folder: Path, table: "pd.DataFrame", allow_changes: bool) -> "tuple[pd.DataFrame, bool]":
    """The table to go on with, and whether it is that of the run; `DataError` where it is not, and names the files.

    With `allow_changes` the images that are still there go on, on their side of the split, and new ones are left out.
    """
    import pandas as pd

    if sha256_of(as_csv(table)) == job.table_sha256:
        return table, True
    try:
        before = pd.read_csv(folder / CHECKPOINT / TABLE, dtype=str, keep_default_na=False).set_index("path")
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{folder / CHECKPOINT / TABLE} is damaged ({error})", fix="start a new run") from error
    now = table.set_index(pd.Index(as_text(table["path"])))
    kept = now.loc[[path for path in before.index if path in now.index]]
    old = before.loc[kept.index]
    other = (kept["sha256"] != old["sha256"]) | (as_text(kept["label"]) != old["label"])
    found = {
        "removed": before.index.difference(now.index, sort=False),
        "changed": kept.index[other],
        "added": now.index.difference(before.index, sort=False),
    }
    found = {word: [Path(path).name for path in paths] for word, paths in found.items() if len(paths)}
    words = [f"{len(names)} {word} ({some_of(names)})" for word, names in found.items()]
    problem = f"the images are not those that {folder} was started with: {'; '.join(words) or 'another split'}"
    if not allow_changes:
        raise DataError(problem, fix="restore them, or --allow-changed-data to go on with those that are still there")
    trained = old["split"] == "train"
    lost = sorted(set(before["label"][before["split"] == "train"]) - set(as_text(kept["label"][trained])))
    if lost and job.recipe["task"] == "classification":
        raise DataError(f"{problem}, and no training image of {some_of(lost)} is left", fix="start a new run")
    rows = kept.assign(split=old["split"]).reset_index(drop=True)
    rows.attrs |= table.attrs
    return rows, False


def clear_results(folder: Path) -> None:
    """Remove what a stopped run had written, before the results of the whole run are written."""
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    for name in ("bundle", "pictures"):
        shutil.rmtree(folder / name, ignore_errors=True)
    remove_partial(folder)


@dataclass(frozen=True)
class RunState:
    """A run folder as `kit runs` shows it.

    state: "running", "stopped" or "done". result: the figures of result.json. progress: of the last checkpoint.
    command: to go on, where that is possible.
    """

    folder: str
    state: str
    result: dict[str, Any] | None
    progress: dict[str, Any] | None
    command: str | None

    def __str__(self) -> str:
        words = [f"{self.folder}  {self.state}"]
        if self.result and self.state == "done":
            name, value = next(iter(self.result.items()))
            words.append(f"{name} {value if value is None else round(value, 4)} (n={self.result['n']})")
        elif self.progress:
            at = self.progress
            words.append(f"{at['phase']}: {at['epoch']} of {at['epochs']} epochs, {at['steps']} steps in all")
        return "  ".join([*words, self.command or ""]).rstrip()


def list_runs(folder: Path) -> list[RunState]:
    """The runs in a folder, by name. Raises `OutputError` where there is no such folder."""
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}", fix="give the folder that holds the runs: kit runs FOLDER")
    states = (run_state(path) for path in sorted(folder.iterdir()) if path.is_dir())
    return [state for state in states if state is not None]


def run_state(folder: Path) -> RunState | None:
    """The state of a run folder; None for other folders."""
    result, job = _read(folder / "result.json"), (folder / CHECKPOINT / JOB).is_file()
    running = is_held(folder)
    if not (running or result or job):
        return None
    command = shlex.join(["kit", "fine-tune", "--resume", str(folder)]) if job and not running else None
    figures = {name: result[name] for name in list(result)[:4]} if result else None
    state = "running" if running else "stopped" if job or result.get("stopped") else "done"
    return RunState(str(folder), state, figures, _progress(folder / CHECKPOINT), command)


def is_held(folder: Path) -> bool:
    """Whether a process is writing a folder."""
    try:
        with locked(folder, shared=True):
            return False
    except OutputError:
        return True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _progress(folder: Path) -> dict[str, Any] | None:
    """Where the last checkpoint in a folder is; None where there is none."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors"), reverse=True):
        with suppress(SafetensorError, OSError, KeyError, ValueError), safe_open(path, "numpy") as file:
            return json.loads(file.metadata()["progress"])
    return None
