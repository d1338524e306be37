"""A run folder: what a finished training leaves behind for people and for later commands.

    runs/NAME/  report.html  recipe.json  table.csv  result.json  history.csv  predictions.csv  pictures/  bundle/

`kit predict runs/NAME photo.jpg` goes on from it.
"""

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import processes
from kit.data.audit import check
from kit.errors import OutputError
from kit.evaluate.pictures import as_html, draw_predictions
from kit.evaluate.result import Result
from kit.files import claimed, write_json, write_text
from kit.intervals import Estimate
from kit.manifest import CONFIG, read_form
from kit.missing import named
from kit.recipe import Recipe
from kit.tasks import of
from kit.views.report import Report, write_report

if TYPE_CHECKING:
    from kit.train.history import History


@dataclass(frozen=True)
class Run:
    """A finished run: its source and folder, the table of images, the fastai Learner, its Evaluation, and the bundle.

    `test` is the Evaluation on the held-out test images, where there are any; `seconds` from the call to the bundle;
    `views` the validation images again, with test-time augmentation, where the recipe asked for it; `missing` how
    images changed or vanished during the run, by path.
    """

    source: Any
    folder: Path
    table: pd.DataFrame
    learner: Any
    history: "History"
    evaluation: Result
    test: Result | None
    bundle: Path
    seconds: float
    views: Result | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """What the run was told."""
        return self.learner.spec.recipe

    @property
    def headline(self) -> Estimate:
        """The one figure of the task on validation images, with its n and 95 % interval: the error rate, F1, or R2."""
        return self.evaluation.headline

    @property
    def error_rate(self) -> Estimate:
        """The validation error rate with its n and 95 % interval; of classification alone."""
        return self.evaluation.error_rate

    @property
    def pictures(self) -> list[Path]:
        """The pictures of the run, as PNG files."""
        return sorted((self.folder / "pictures").glob("*.png"))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.evaluation.name}={self.headline})"

    def _repr_html_(self) -> str:
        words = self.evaluation.words
        return f"<p><b>{words[0].upper()}{words[1:]} {self.headline}</b></p>{as_html(self.pictures)}"

    def lines(self) -> list[str]:
        """The result in words, the test result where there is one, and where everything lies."""
        where = f"{self.folder}: report.html, bundle, predictions.csv, pictures ({self.seconds:.0f} s)"
        return [*self.evaluation.lines(), *self.remarks(), where]

    def remarks(self) -> list[str]:
        """What else is worth knowing of the result, in words."""
        lines = []
        if self.test is not None:
            lines.append(f"on the held-out test images: {self.test.words} {self.test.headline}")
        if self.views is not None:
            lines.append(
                f"with test-time augmentation ({self.recipe.tta} views): {self.views.words} {self.views.headline};"
                " a bundle predicts without it"
            )
        if layers := self.history.chosen.get("layers"):
            lines.append(f"trained: {'all layers' if layers['kept'] == 'whole' else 'the head'} ({layers['because']})")
        lines += lost(self.missing, self.evaluation.n, int((self.table["split"] == "valid").sum())) + self.caveats()
        if self.history.stopped:
            lines.append(f"note: training ended early, after {len(self.history.steps)} steps: {self.history.stopped}")
        return lines

    def caveats(self) -> list[str]:
        """What its figures are to be read with, in words."""
        lines = []
        if self.recipe.patience and self.history.steps:
            lines.append("note: early stopping chose the weights by these images, which flatters them a little")
        if (self.bundle / CONFIG).is_file() and (doubts := of(self.evaluation.task).doubts(read_form(self.bundle))):
            lines.append(f"note: {doubts}")
        if self.learner.spec.weights.note:
            lines.append(f"note: {self.learner.spec.weights.note}")
        return lines


def lost(missing: Mapping[str, str], measured: int, planned: int) -> list[str]:
    """A line about images that changed or vanished during a run, where there are any; measured, planned: how many were
    predicted of those that are for validation."""
    if not missing:
        return []
    images = "1 image" if len(missing) == 1 else f"{len(missing)} images"
    found = f"{images} vanished or changed during the run: {named(missing)}"
    return [f"note: {found}; {measured} of {planned} validation images were measured"]


def free_names(source: Any, recipe: Recipe) -> Iterator[Path]:
    """New folders' names below runs/, from the source, the network, if one is named, and the time:
    runs/pets-resnet34-20261121-153000."""
    name = Path(str(source)).resolve().name if isinstance(source, str | Path) else "table"
    parts = (name, *([] if recipe.arch == "auto" else [recipe.arch]), time.strftime("%Y%m%d-%H%M%S"))
    stem = re.sub(r"[^\w.-]+", "-", "-".join(parts))
    numbers = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return (path for path in (Path("runs") / name for name in numbers) if not path.exists())


@contextmanager
def run_folder(source: Any, recipe: Recipe, out: str | Path | None) -> Iterator[Path]:
    """The folder of a new run, which no other run can take: `out`, or the first free name below runs/."""
    with ExitStack() as stack:
        for path in [Path(out)] if out else free_names(source, recipe):
            try:
                folder = stack.enter_context(claimed(path))
                break
            except OutputError:
                if out or not path.exists():  # else another run has just taken that name
                    raise
        yield folder


def result_json(run: Run) -> dict[str, Any]:
    """result.json: the figures for programs, and where the weights came from."""
    weights = run.learner.spec.weights
    return {
        **run.evaluation.figures(),
        "seconds": round(run.seconds, 2),
        "metrics": run.evaluation.to_json(),
        "test": run.test.figures() | {"metrics": run.test.to_json()} if run.test else None,
        "tta": run.views.figures() | {"views": run.recipe.tta} if run.views else None,
        "stopped": run.history.stopped,
        "missing": dict(run.missing),
        "layers": run.history.chosen.get("layers"),
        "weights": {"asked": weights.asked, "kind": weights.kind, "origin": weights.origin, "note": weights.note},
        "bundle": str(run.bundle),
    }


def chosen_json(run: Run) -> dict[str, Any]:
    """Every choice that was made for the user: device, arithmetic, threads, workers, normalisation, versions."""
    import torch

    from kit.bundle.write import package_versions
    from kit.train.precision import precision_for

    precision, dls = precision_for(run.learner, run.recipe), run.learner.dls
    source = run.source if isinstance(run.source, str | Path) else type(run.source).__name__
    return {
        "source": str(source),
        "folder": str(Path.cwd()),
        "arch": run.learner.spec.architecture.full_name,
        "weights": run.learner.spec.weights.origin,
        "size": run.recipe.input_size,
        "split": run.table.attrs.get("split"),
        **run.history.chosen,
        "steps": len(run.history.steps),
        "kept_epoch": run.history.best_epoch if run.recipe.patience and run.history.steps else None,
        "stopped": run.history.stopped,
        "device": str(dls.device),
        "precision": precision.name,
        "channels_last": precision.channels_last,
        "precision_because": precision.reason,
        "processes": processes.started(),
        "threads": torch.get_num_threads(),
        "workers": dls.train.fake_l.num_workers,
        "mean": list(run.learner.spec.weights.mean),
        "std": list(run.learner.spec.weights.std),
        "left_out": run.table.attrs.get("left_out", []),
        "versions": package_versions(),
    }


def write_run(run: Run) -> None:
    """Write all of a run folder except the bundle, which is there already and whose answers predictions.csv holds."""
    config = read_form(run.bundle)
    shown = run.evaluation.answered(config)
    sides = [("valid", shown)] + ([("test", run.test.answered(config))] if run.test else [])
    predictions = pd.concat([part.predictions.assign(split=side) for side, part in sides], ignore_index=True)
    write_results(
        run.folder,
        run.evaluation,
        run.recipe,
        chosen_json(run),
        result_json(run),
        {"table": run.table, "history": run.history.table(), "predictions": predictions},
        history=run.history,
        shown=shown,
        command=command(run.source, replace(run.recipe, arch=run.learner.spec.architecture.full_name)),
        findings=check(run.table, run.recipe.fixed_batch).findings,
        notes=[*run.evaluation.remarks(), *run.remarks()],
    )


def write_results(
    folder: Path,
    result: Result,
    recipe: Recipe,
    chosen: dict[str, Any],
    figures: dict[str, Any],
    tables: dict[str, pd.DataFrame],
    shown: Result,
    history: "History | None" = None,
    **report: Any,
) -> None:
    """Write recipe.json, result.json, tables as CSV files, pictures and report.html into a folder.

    chosen: see `chosen_json`; figures: for result.json; shown: the result with the probabilities that pictures show;
    history: of one training, for its curves; report: further fields of `kit.views.Report`.
    """
    from kit.train.history import draw_curves

    write_json(folder / "recipe.json", {"recipe": recipe.to_json(), "chosen": chosen})
    write_json(folder / "result.json", figures)
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    pictures = folder / "pictures"
    pictures.mkdir()
    curves = pictures / "curves.png" if history else None
    if history:
        draw_curves(history, curves)
    overview = result.draw_overview(pictures)
    here = shown.here
    draw_predictions(here, here.top_losses(8), pictures / "top_losses.png", "Highest losses")
    draw_predictions(here, here.selection(), pictures / "predictions.png", "Predictions on validation images")
    write_report(Report(result, recipe, chosen, overview, curves=curves, shown=here, **report), folder / "report.html")


def command(source: Any, recipe: Recipe, folds: int | None = None) -> str:
    """The line that makes a run again: on the command line, or in Python where the source is a table."""
    told = {"folds": folds} if folds else {}
    told |= {
        one.name: value
        for one, value in zip(fields(Recipe), recipe.to_json().values(), strict=True)
        if getattr(recipe, one.name) != one.default
    }
    if not isinstance(source, str | Path):
        function = "cross_validate" if folds else "fine_tune"
        return f"kit.{function}(table, {', '.join(f'{name}={value!r}' for name, value in told.items())})"
    words = ["kit", "fine-tune", str(source)]
    for name, value in told.items():
        option = name.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    return shlex.join(words)
