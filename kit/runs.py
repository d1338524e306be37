"""A run folder: what a finished training leaves behind for people and for later commands.

    runs/NAME/  recipe.json  table.csv  result.json  history.csv  predictions.csv  pictures/  bundle/

`kit predict runs/NAME photo.jpg` goes on from it.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kit.bundle.write import package_versions
from kit.evaluate.evaluation import Evaluation
from kit.evaluate.pictures import as_html, draw_confusion, draw_predictions, telling_examples
from kit.files import write_json, write_text
from kit.intervals import Estimate
from kit.recipe import Recipe
from kit.train.history import History, draw_curves
from kit.train.phases import precision_for, rates_for


@dataclass(frozen=True)
class Run:
    """A finished run: its source and folder, the table of images, the fastai Learner, its Evaluation, and the bundle.

    `test` is the Evaluation on the held-out test images, where there are any; `seconds` from the call to the bundle.
    """

    source: Any
    folder: Path
    table: pd.DataFrame
    learner: Any
    history: History
    evaluation: Evaluation
    test: Evaluation | None
    bundle: Path
    seconds: float

    @property
    def recipe(self) -> Recipe:
        """What the run was told."""
        return self.learner.origin.recipe

    @property
    def error_rate(self) -> Estimate:
        """The validation error rate with its n and 95 % interval."""
        return self.evaluation.error_rate

    @property
    def pictures(self) -> list[Path]:
        """The pictures of the run, as PNG files."""
        return sorted((self.folder / "pictures").glob("*.png"))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, error_rate={self.error_rate})"

    def _repr_html_(self) -> str:
        return f"<p><b>Error rate {self.error_rate}</b></p>{as_html(self.pictures)}"

    def lines(self) -> list[str]:
        """The result in words, the test result where there is one, and where everything lies."""
        lines = self.evaluation.lines()
        if self.test is not None:
            lines.append(f"on the held-out test images: error rate {self.test.error_rate}")
        if self.learner.origin.start.note:
            lines.append(f"note: {self.learner.origin.start.note}")
        return [*lines, f"{self.folder}: bundle, predictions.csv, pictures ({self.seconds:.0f} s)"]


def free_name(source: Any, recipe: Recipe) -> Path:
    """A new folder's name below runs/, from the source, the network and the time: runs/pets-resnet18-20261121-1530."""
    name = Path(str(source)).resolve().name if isinstance(source, str | Path) else "table"
    stem = re.sub(r"[^\w.-]+", "-", f"{name}-{recipe.arch}-{time.strftime('%Y%m%d-%H%M%S')}")
    numbers = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next(path for path in (Path("runs") / name for name in numbers) if not path.exists())


def result_json(run: Run) -> dict[str, Any]:
    """result.json: the figures for programs, and where the weights came from."""
    start = run.learner.origin.start
    return {
        **run.evaluation.figures(),
        "seconds": round(run.seconds, 2),
        "metrics": run.evaluation.to_json(),
        "test": run.test.figures() | {"metrics": run.test.to_json()} if run.test else None,
        "weights": {"asked": start.asked, "kind": start.kind, "origin": start.origin, "note": start.note},
        "bundle": str(run.bundle),
    }


def chosen_json(run: Run) -> dict[str, Any]:
    """Every choice that was made for the user: device, arithmetic, threads, workers, normalisation, versions."""
    precision, dls = precision_for(run.learner, run.recipe), run.learner.dls
    rate, lr_mult = rates_for(run.learner, run.recipe)
    source = run.source if isinstance(run.source, str | Path) else type(run.source).__name__
    return {
        "source": str(source),
        "folder": str(Path.cwd()),
        "split": run.table.attrs.get("split"),
        "rate": rate,
        "lr_mult": lr_mult,
        "device": str(dls.device),
        "precision": precision.name,
        "channels_last": precision.channels_last,
        "precision_because": precision.reason,
        "threads": torch.get_num_threads(),
        "workers": dls.train.fake_l.num_workers,
        "mean": list(run.learner.origin.start.mean),
        "std": list(run.learner.origin.start.std),
        "left_out": run.table.attrs.get("left_out", []),
        "versions": package_versions(),
    }


def write_run(run: Run) -> None:
    """Write all of a run folder but the bundle, which is there already."""
    write_json(run.folder / "recipe.json", {"recipe": run.recipe.to_json(), "chosen": chosen_json(run)})
    write_json(run.folder / "result.json", result_json(run))
    sides = [("valid", run.evaluation)] + ([("test", run.test)] if run.test else [])
    predictions = pd.concat([part.predictions.assign(split=side) for side, part in sides], ignore_index=True)
    tables = {"table": run.table, "history": run.history.table(), "predictions": predictions}
    for name, table in tables.items():
        write_text(run.folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    pictures = run.folder / "pictures"
    pictures.mkdir()
    draw_curves(run.history, pictures / "curves.png")
    draw_confusion(run.evaluation, pictures / "confusion.png")
    draw_predictions(run.evaluation.top_losses(8), pictures / "top_losses.png", "Highest losses")
    draw_predictions(telling_examples(run.evaluation), pictures / "predictions.png", "Predictions on validation images")
