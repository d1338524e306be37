"""kit evaluate BUNDLE FOLDER: evaluate a bundle on other labelled images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit.cli.options import Bundle, Columns, Device, Engine, Folder, Labels
from kit.console import progress, say
from kit.errors import DataError
from kit.files import sha256
from kit.manifest import FROM_TABLE, TRAINED_ON

if TYPE_CHECKING:
    import pandas as pd

    from kit.bundle.predictor import Predictor
    from kit.data.labels import Targets

Label = Annotated[str | None, typer.Option(help="how labels are found; default: as in the bundle's training")]
Delimiter = Annotated[str | None, typer.Option(help="the separator of several classes; default: as in training")]
Out = Annotated[Path | None, typer.Option(help="write the predictions here (CSV)")]
Json = Annotated[bool, typer.Option("--json", help="print the figures as JSON")]


def evaluate(
    bundle: Bundle,
    folder: Folder,
    label: Label = None,
    labels: Labels = None,
    targets: Columns = None,
    delimiter: Delimiter = None,
    out: Out = None,
    device: Device = "auto",
    engine: Engine = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate BUNDLE on all labelled images of FOLDER: its metrics with intervals, for each class or number too."""
    from kit.bundle.read import load
    from kit.data.audit import about_files
    from kit.data.sources import labelled_images
    from kit.evaluate.evaluation import result_of_predictions
    from kit.files import check_parent, write_text

    if out:
        check_parent(out)
    predictor = load(bundle, device, engine)
    rule = label or ("folder" if labels else label_of_bundle(predictor.config["label"]))
    how = labels_read_as(predictor.config, targets, delimiter)
    rows = labelled_images(folder, label=rule, labels=labels, targets=how)
    for finding in about_files(rows):
        say(finding.text)
    rows = without_trained(rows, predictor.folder)
    check(rows["label"].tolist(), predictor)
    predictions = list(progress(predictor.predict_each(rows["path"]), "evaluate", total=len(rows)))
    for one in predictions:
        if one.error:
            say(f"left out {one.path}: {one.error}")
    good = [(one, name) for one, name in zip(predictions, rows["label"], strict=True) if one.error is None]
    result = result_of_predictions([one for one, _ in good], [name for _, name in good], predictor.config)
    if out:
        write_text(out, result.predictions.to_csv(index=False, lineterminator="\n"))
    print(json.dumps(result.figures() | {"metrics": result.to_json()}) if as_json else "\n".join(result.lines()))
    if not as_json:
        print(result.breakdown.to_string(float_format=lambda value: f"{value:.3f}"))


def labels_read_as(config: dict[str, Any], targets: str | None, delimiter: str | None) -> "Targets":
    """How labels are read: as in the bundle's training, except for the options that are given."""
    from kit.data.sources import targets_of
    from kit.recipe import Recipe

    given = {name: value for name, value in (("targets", targets), ("delimiter", delimiter)) if value is not None}
    kept = {name: config["recipe"].get(name) for name in ("targets", "delimiter") if config["recipe"].get(name)}
    return targets_of(Recipe(task=config["task"], **(kept | given)))


def check(labels: list[str], predictor: "Predictor") -> None:
    """Raise `DataError` for labels of classes that the bundle does not have."""
    from kit.evaluate.classification import check_labels
    from kit.tasks.training import training_of

    check_labels(list(training_of(predictor.task).count(labels)), predictor.vocab)


def label_of_bundle(label: str) -> str:
    """The bundle's label rule. Raises `DataError` for a function or a table: code named by a bundle is never run."""
    from kit.data.labels import is_function_name

    if is_function_name(label):
        problem = f"this bundle was trained with the label function {label}, and kit runs no code that a bundle names"
        raise DataError(problem, fix=f"give --label {label} if you trust it, another rule, or --labels FILE")
    if label == FROM_TABLE:
        raise DataError("this bundle was trained on a table of labels", fix="give one for these images: --labels FILE")
    return label


def without_trained(rows: "pd.DataFrame", folder: Path) -> "pd.DataFrame":
    """The rows without the images (by SHA-256) that the bundle was trained on; prints how many were left out."""
    path = folder / TRAINED_ON
    trained = set(path.read_text(encoding="ascii").split()) if path.is_file() else set()
    seen = [sha256(Path(name)) in trained for name in rows["path"]]
    if not any(seen):
        return rows
    if all(seen):
        raise DataError("the bundle was trained on all of these images", fix="give images that it has never seen")
    say(f"left out {sum(seen)} of {len(rows)} images: the bundle was trained on them")
    return rows[[not known for known in seen]].reset_index(drop=True)
