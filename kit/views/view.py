"""A result as plain values, made from an evaluation or from a bundle's config.json, for the templates to show.

view_of(predictor.config).sentence()      # "Error rate: 5.4 % (95 % interval: 2.1 % to 13.1 %), measured on 74 ..."

A bundle may be older or come from an unknown source: what is missing, or not a number, is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kit.errors import some_of
from kit.manifest import CONVERTED
from kit.tasks import Task, of
from kit.tasks.base import FIGURES, Figure, Scale, numbers_in
from kit.tasks.text import percent

MAX_CLASSES, MOST_PAIRS, MOST_NAMED = 25, 8, 12
CUT = {
    "crop": "the middle square of the image",
    "pad": "the whole image, with borders",
    "pad-reflection": "the whole image, its borders mirrored",
    "pad-border": "the whole image, its borders extended",
    "squish": "the whole image, squeezed to a square",
}
FLAGS = (
    "It flags images that are unlike its training images, and about {} of those that are like them; it does not notice "
    "all others."
)
ANEW = (
    "The figures hold for images like those that were measured. For another camera, place or season, measure again: "
    "`kit evaluate BUNDLE FOLDER`."
)


class MatrixRow(NamedTuple):
    """A true class: how many images of it there are, and how many were predicted as each class of the columns."""

    name: str
    total: int
    counts: list[int]


class Matrix(NamedTuple):
    """A confusion matrix. classes: how many there are in all; of more than 25, those confused most are shown, and the
    last column counts the others."""

    columns: list[str]
    rows: list[MatrixRow]
    classes: int


@dataclass(frozen=True)
class View:
    """A result for templates.

    ability, record: what it does, and how often it is wrong, for people who know nothing of it; record may be "".
    measured: the images it was measured on. figures: the columns of `breakdown`, which has a row for each class or
    number. confused: (true, predicted, times), most frequent first. facts, limits: of a bundle. learned: the number of
    images that it was trained on. flags: whether it flags images that are unlike them.
    """

    task: Task
    vocab: list[str]
    title: str
    ability: str
    record: str
    measured: str
    scales: list[Scale]
    remarks: list[str]
    figures: dict[str, Figure]
    breakdown: dict[str, Mapping[str, Any]]
    matrix: Matrix | None
    confused: list[Sequence[Any]]
    facts: dict[str, str]
    limits: list[str]
    learned: str
    flags: bool

    @property
    def claim(self) -> str:
        """Both as one sentence: "Tells cat from dog; wrong on about 1 in 14 photos like those it learned."."""
        return f"{'; '.join(filter(None, [self.ability, self.record]))}."

    def sentence(self) -> str:
        """The main figures with their 95 % intervals, in words and without a full stop."""
        figures = [
            f"{one.name} {one.text(one.value)} (95 % interval: {one.text(one.low)} to {one.text(one.high)})"
            for one in self.scales
        ]
        start = f"{self.task.heading}: {', '.join(map(str.strip, figures))}, measured" if figures else "Measured"
        return f"{start} on {self.measured}"


def _network(architecture: Mapping[str, Any]) -> str:
    """The name of an architecture and the library it is from: "resnet18 (torchvision)"."""
    library = architecture.get("library", "")
    return f"{architecture['name'].removeprefix(f'{library}/')} ({library})"


def view_of_result(result: Any) -> View:
    """The view of a `kit.evaluate.Result` on images that its network was not trained on."""
    return view_of({"task": result.task, "vocab": result.vocab, "metrics": result.figures() | result.to_json()})


def view_of(config: Mapping[str, Any]) -> View:
    """The view of a bundle's config.json; without facts and limits where it holds figures alone."""
    task, metrics, whole = of(config["task"]), config["metrics"], "architecture" in config
    known = config.get("start", {}).get("kind") != CONVERTED
    breakdown = task.breakdown(config)
    pairs = metrics.get("most_confused")
    pairs = pairs if isinstance(pairs, list) else []
    return View(
        task=task,
        vocab=config["vocab"],
        title=task.title(config["vocab"]),
        ability=task.ability(config["vocab"]),
        record=task.record(config),
        measured=f"{metrics['n']:,} images{' that it was not' if known else ', which it may have been'} trained on",
        scales=task.scales(config),
        remarks=task.remarks(config),
        figures={key: FIGURES[key] for key in task.figures},
        breakdown=breakdown,
        matrix=_matrix(config, breakdown),
        confused=[pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 3][:MOST_PAIRS],
        facts=_facts(config, task, known) if whole else {},
        limits=_limits(config, task) if whole else [],
        learned=_learned(config.get("data", {})),
        flags=bool(numbers_in(config.get("unknown"), "flagged")),
    )


def _matrix(config: Mapping[str, Any], breakdown: Mapping[str, Any]) -> Matrix | None:
    vocab, rows = config["vocab"], []
    cells = {(true, predicted): times for true, predicted, times in config["metrics"].get("confusion", [])}
    places = confused_most(cells, len(vocab))
    others = bool(places) and len(places) < len(vocab)
    for true in places:
        counts = [cells.get((true, predicted), 0) for predicted in places]
        # Of very many classes not all cells are written down.
        total = numbers_in(breakdown.get(vocab[true]), "n") or [sum(n for pair, n in cells.items() if pair[0] == true)]
        rest = [max(0, int(total[0]) - sum(counts))] if others else []
        rows.append(MatrixRow(vocab[true], int(total[0]), counts + rest))
    columns = [vocab[place] for place in places] + ["others"] * others
    return Matrix(columns, rows, len(vocab)) if rows else None


def confused_most(cells: Mapping[tuple[int, int], int], classes: int) -> list[int]:
    """The classes that the confusion matrix shows: up to 25 all, of more those of the most frequent confusions.

    cells: the count of each (true, predicted), classes by number; a missing cell counts as 0. Of more than 25 classes
    without any confusion none is shown.
    """
    if classes <= MAX_CLASSES:
        return list(range(classes)) if cells else []
    shown: set[int] = set()
    for pair in sorted((pair for pair in cells if pair[0] != pair[1]), key=lambda pair: -cells[pair]):
        if len(shown | set(pair)) <= MAX_CLASSES:
            shown |= set(pair)
    return sorted(shown)


def _facts(config: Mapping[str, Any], task: Task, known: bool) -> dict[str, str]:
    data, image, vocab, versions = config["data"], config["image"], config["vocab"], config["versions"]
    origin = str(config["start"].get("origin", "nothing"))
    trained = f"{data.get('train', '?')} images, and validated on {data.get('valid', '?')} others"
    return {
        task.nouns: some_of(vocab, MOST_NAMED) + (f" ({len(vocab)} in all)" if len(vocab) > MOST_NAMED else ""),
        "network": _network(config["architecture"]),
        "started from": Path(origin).name if Path(origin).is_absolute() else origin,
        "trained on": f"{trained}, none of them a copy of a training image" if known else "not known",
        "input": f"{image['size']} × {image['size']} pixels: {CUT[image['resize']]}",
        "made with": ", ".join(f"{name} {versions[name]}" for name in ("fastai", "torch") if name in versions),
    }


def _learned(data: Mapping[str, Any]) -> str:
    count = numbers_in(data, "train")
    return f"{count[0]:,.0f} photos" if count else "photos"


def _limits(config: Mapping[str, Any], task: Task) -> list[str]:
    limits, flagged = [task.limit, ANEW, task.reliability(config)], numbers_in(config.get("unknown"), "flagged")
    return limits + ([FLAGS.format(percent(flagged[0], 0))] if flagged else [])
