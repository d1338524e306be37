"""What a bundle's figures mean in words, whatever its task: what it is called, and how good it is.

headline(predictor.config)                      # "Wrong on 5.4 % of 74 images that it was not trained on"

Imports no pandas, so that the page starts quickly. A bundle may come from a stranger: what is no figure is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kit.manifest import CONVERTED
from kit.task import CLASSIFICATION, MOST_IN_TITLE, MULTILABEL, REGRESSION, percent, shown

MOST = 1e100
# Of a class or of a number: the figures that are always there, and those that may be None (of nothing, there is none).
FIGURES = {
    CLASSIFICATION: (("n",), ("precision", "recall", "f1")),
    MULTILABEL: (("n", "threshold"), ("precision", "recall", "f1", "average_precision")),
    REGRESSION: (("mae", "low", "high", "rmse"), ("r2",)),
}


def measured_on(config: Mapping[str, Any]) -> str:
    """The images that the figures were measured on, in words: what is not known of a converted export is not said."""
    images = f"{config['metrics']['n']:,} images"
    if config["start"].get("kind") == CONVERTED:
        return f"{images}, which it may have been trained on"
    return f"{images} that it was not trained on"


def headline(config: Mapping[str, Any], interval: bool = False) -> str:
    """How good the model is, as a sentence without its full stop. interval: whether with the 95 % interval."""
    figures, measured = config["metrics"], measured_on(config)
    if config["task"] == CLASSIFICATION:
        return f"Wrong on {percent(figures['error_rate'])} of {measured}{_ends(figures, percent, interval)}"
    if config["task"] == MULTILABEL:
        return f"F1 {share(figures['f1'])} on {measured}{_ends(figures, share, interval)}"
    rows = breakdown(config)
    if 1 <= len(rows) <= MOST_IN_TITLE:
        parts = [
            f"{shown(row['mae'])}{f' in {name}' if len(config['vocab']) > 1 else ''}{_ends(row, shown, interval)}"
            for name, row in rows.items()
        ]
        return f"Off by {listed(parts)} on average, on {measured}"
    if figures.get("r2") is None:
        return f"Measured on {measured}"
    return f"R2 {share(figures['r2'])} on {measured}{_ends(figures, share, interval)}"


def share(value: float | None) -> str:
    """A figure whose best is 1, as text: 0.836; "–" where there is none."""
    return "–" if value is None else f"{value:.3f}"


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def breakdown(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The figures of each class, or of each number, in the order of the vocabulary."""
    needed, optional = FIGURES[config["task"]]
    rows = config["metrics"].get("per_target" if config["task"] == REGRESSION else "per_class")
    rows = rows if isinstance(rows, Mapping) else {}
    return {
        name: rows[name]
        for name in config["vocab"]
        if isinstance(rows.get(name), Mapping)
        and all(is_figure(rows[name].get(key)) for key in needed)
        and all(rows[name].get(key) is None or is_figure(rows[name][key]) for key in optional)
    }


def is_figure(value: Any) -> bool:
    """Whether a value of a bundle is a number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST < value < MOST


def ranges(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The lowest and the highest answer of each number of a regression, by name."""
    limits = config["range"]
    return dict(zip(config["vocab"], zip(limits["low"], limits["high"], strict=True), strict=True))


def _ends(figures: Mapping[str, Any], text: Any, wanted: bool) -> str:
    if not wanted or figures.get("low") is None or figures.get("high") is None:
        return ""
    return f" (95 % interval: {text(figures['low'])} to {text(figures['high'])})"
