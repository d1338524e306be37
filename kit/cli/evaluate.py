"""kit evaluate BUNDLE FOLDER: measure a bundle anew on labelled images."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.console import progress, say

Bundle = Annotated[Path, typer.Argument(help="a bundle's folder, or a run folder")]
Folder = Annotated[str, typer.Argument(help="a folder of labelled images, or a named data set: sample, pets")]
Label = Annotated[str | None, typer.Option(help="how a file says its label; by default as in the bundle's training")]
Labels = Annotated[str | None, typer.Option(help="a CSV file with the columns path and label")]
Out = Annotated[Path | None, typer.Option(help="write the predictions here (CSV)")]
Json = Annotated[bool, typer.Option("--json", help="print the figures as JSON")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]


def evaluate(
    bundle: Bundle,
    folder: Folder,
    label: Label = None,
    labels: Labels = None,
    out: Out = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Measure BUNDLE on all labelled images of FOLDER: error rate with its interval, per class, what is confused."""
    from kit.bundle.read import load
    from kit.data.sources import labelled_images
    from kit.evaluate.evaluation import Evaluation
    from kit.files import write_text

    predictor = load(bundle, device)
    rows = labelled_images(folder, label=label or predictor.config["label"], labels=labels)
    stream = predictor.predict_each(rows["path"].tolist())
    predictions = list(progress(stream, "evaluate", total=len(rows)))
    good = [index for index, one in enumerate(predictions) if one.error is None]
    for one in predictions:
        if one.error:
            say(f"left out {one.path}: {one.error}")
    result = Evaluation.from_predictions(
        [predictions[i] for i in good], rows["label"].iloc[good].tolist(), predictor.vocab
    )
    if out:
        write_text(out, result.predictions.to_csv(index=False, lineterminator="\n"))
    print(json.dumps(result.figures() | {"metrics": result.to_json()}) if as_json else "\n".join(result.lines()))
    if not as_json:
        print(result.per_class.to_string(float_format=lambda value: f"{value:.3f}"))
