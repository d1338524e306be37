"""Any number of classes an image, each from a threshold of its own on. The main figure is the mean F1."""

from collections.abc import Sequence
from typing import Any

from kit.tasks.base import LIKE, Config, Prediction, Task, are_numbers, numbers_in
from kit.tasks.text import MULTILABEL, NONE, classes_of, join_classes, listed, one_in, percent, shown

Z2 = 3.84  # with it, Z2 / (n + Z2) is the upper end of Wilson's 95 % interval for no errors of n
MAX_SHOWN, LEAST_OTHERS, MOST_FOUND = 5, 2, 20


class MultiLabel(Task):
    """Any number of classes an image."""

    name, headline, heading = MULTILABEL, "f1", "Mean F1"
    purpose = "Finds which of these classes are in an image, any number of them"
    limit = "It knows only these classes and may find them in any image, whatever the image shows."
    overview = "F1 and average precision of each class, the lowest last; in brackets, how many images have the class."
    recipe_fields = ("delimiter", "targets", "class_weights")
    json_fields = ("labels", "probabilities")
    figures = ("n", "threshold", "precision", "recall", "f1", "average_precision")
    onnx_activation = "Sigmoid"
    published = ("mean_average_precision", "exact")

    def answer(self, outputs: dict[str, float], config: Config) -> dict[str, Any]:
        """The classes whose probability reaches their threshold, likeliest first."""
        least = self.thresholds(config)
        found = sorted((name for name in outputs if outputs[name] >= least[name]), key=lambda name: -outputs[name])
        return {"label": join_classes(found), "labels": tuple(found), "probabilities": outputs}

    def activation(self, logits: Any) -> Any:
        """Sigmoid."""
        return logits.sigmoid()

    def problem(self, config: Config) -> str | None:
        """Whether each class has a threshold."""
        count = len(config["vocab"])
        if not are_numbers(config.get("thresholds"), count):
            return f"field thresholds is not a list of {count} numbers"
        return super().problem(config)

    def parts(self, one: Prediction, most: int = 1) -> list[tuple[str, str]]:
        """The classes; where there is none, the likeliest."""
        likeliest = ", ".join(f"{name} {percent(value)}" for name, value in one.top(1))
        found = [(name, percent(one.probabilities[name])) for name in one.labels]
        return found or [(NONE, f"(likeliest: {likeliest})")]

    def groups(self, one: Prediction, config: Config) -> dict[str, list[str]]:
        """The classes that are predicted, and the likeliest of those that are not."""
        found, others = one.labels[:MOST_FOUND], [name for name, _ in one.top(None) if name not in one.labels]
        return {"Predicted": list(found), "Not predicted": others[: max(MAX_SHOWN - len(found), LEAST_OTHERS)]}

    def ability(self, vocab: Sequence[str]) -> str:
        """ "Finds cat, dog and fox in a photo"."""
        return f"Finds {listed(vocab)} in a photo"

    def record(self, config: Config) -> str:
        """On how many photos not every class is right."""
        found = numbers_in(config["metrics"], "exact", "n")
        if not found or not 0 <= found[0] <= 1:
            return ""
        exact, n = found
        if exact == 0:
            return f"wrong about one class or more on each of {n:,.0f} photos"
        if exact < 1:
            return f"wrong about one class or more on {one_in(1 - exact)} {LIKE}"
        high = one_in(Z2 / (n + Z2), at_most=True)
        return f"no mistake on {n:,.0f} photos, so wrong on at most {high} {LIKE}"

    def doubt(self, one: Prediction, config: Config) -> float:
        """How close the closest probability is to its threshold."""
        least = self.thresholds(config)
        return -min(abs(value - least[name]) for name, value in one.probabilities.items())

    def thresholds(self, config: Config) -> dict[str, float]:
        """The threshold of each class."""
        return dict(zip(config["vocab"], config["thresholds"], strict=True))

    def remarks(self, config: Config) -> list[str]:
        """How many images are right in every class, and the mean average precision."""
        exact, precision = (numbers_in(config["metrics"], key) for key in ("exact", "mean_average_precision"))
        remarks = [f"All classes are right on {percent(exact[0])} of the images."] if exact else []
        return remarks + ([f"Mean average precision: {precision[0]:.3f}."] if precision else [])

    def reliability(self, config: Config) -> str:
        """From which probability on a class is predicted."""
        if len(set(config["thresholds"])) == 1:
            return f"A class is predicted from a probability of {shown(config['thresholds'][0])} on."
        found = numbers_in(config.get("thresholds_fit"), "f1_after", "n", "f1_before")
        gain = " With them F1 is {:.3f} (cross-fitted, n={}), with 0.5 for all {:.3f}.".format(*found) if found else ""
        return f"Each class has a threshold of its own, fitted on the images it was measured on.{gain}"

    def label(self, text: str, vocab: Sequence[str]) -> str:
        """ "cat, dog", or "none of the classes"."""
        return ", ".join(classes_of(text)) or NONE

    def described(self, config: Config) -> dict[str, Any]:
        """The figures, and the threshold of each class."""
        return super().described(config) | {"thresholds": self.thresholds(config)}
