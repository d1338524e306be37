"""One or several numbers an image: an age, a place, a weight. The main figure is the mean R2."""

from collections.abc import Sequence
from typing import Any

from kit.errors import some_of
from kit.tasks.base import LIKE, ROOM, Config, Prediction, Scale, Task, are_numbers, numbers_in
from kit.tasks.text import REGRESSION, listed, numbers_of, percent, shown

MOST_SCALES, MOST_NAMED = 6, 12


class Regression(Task):
    """One or several numbers an image."""

    name, headline, heading = REGRESSION, "r2", "Mean absolute error"
    noun, nouns, output, outputs = "number", "numbers", "number", "numbers"
    difference = "a number, in widths of its range,"
    tag = "image-regression"
    purpose = "Predicts these numbers from an image"
    limit = "It answers with numbers for any image, whatever the image shows."
    overview = "Predicted over true numbers, a dot for each image; on the line both are equal."
    mistakes = "Largest errors"
    heat_target = "a higher number"
    order = "Those unlike the training images come first."
    answer_columns = ()
    prefix, digits = "predicted_", ".7g"
    always_measured = False
    recipe_fields = ("targets", "y_range")
    json_fields = ("numbers",)
    breakdown_key = "per_target"
    figures = ("mae", "low", "high", "rmse", "r2")
    onnx_activation = "Identity"
    published = ()
    text = staticmethod(shown)

    def answer(self, outputs: dict[str, float], config: Config) -> dict[str, Any]:
        """The numbers."""
        return {"numbers": outputs}

    def activation(self, logits: Any) -> Any:
        """None: the network's last layer is the range."""
        return logits

    def width(self, config: Config) -> list[float]:
        """The width of each number's range."""
        return [high - low for low, high in self.ranges(config).values()]

    def problem(self, config: Config) -> str | None:
        """Whether each number has a range."""
        ends, count = config.get("range"), len(config["vocab"])
        good = isinstance(ends, dict) and isinstance(ends.get("bounded"), bool)
        good = good and are_numbers(ends.get("low"), count) and are_numbers(ends.get("high"), count)
        if not good or any(low >= high for low, high in self.ranges(config).values()):
            return f"field range has no low and high for {count} numbers"
        return super().problem(config)

    def parts(self, one: Prediction, most: int = 1) -> list[tuple[str, str]]:
        """The numbers."""
        return [(name, shown(number)) for name, number in one.numbers.items()]

    def groups(self, one: Prediction, config: Config) -> dict[str, list[str]]:
        """The numbers, each of which has its range."""
        which = "possible answers" if config["range"]["bounded"] else "training images"
        return {f"Within the range of the {which}": list(one.numbers)}

    def ability(self, vocab: Sequence[str]) -> str:
        """ "Estimates width and height from a photo"."""
        return f"Estimates {listed(vocab)} from a photo"

    def record(self, config: Config) -> str:
        """How far it is off on average; where R2 is not above 0, that the mean is as good."""
        rows = {name: numbers_in(row, "mae") for name, row in self.breakdown(config).items()}
        r2, several = numbers_in(config["metrics"], "r2"), len(config["vocab"]) > 1
        if r2 and r2[0] <= 0:
            return "no better than always answering the mean"
        errors = [shown(row[0]) + (f" ({name})" if several else "") for name, row in rows.items() if row]
        return f"off by {listed(errors)} on average, on {LIKE}" if errors else ""

    def ranges(self, config: Config) -> dict[str, tuple[float, float]]:
        """The lowest and highest answer of each number; without bounds, those of the training images."""
        ends = zip(config["range"]["low"], config["range"]["high"], strict=True)
        return dict(zip(config["vocab"], ends, strict=True))

    def scales(self, config: Config) -> list[Scale]:
        """The mean absolute error of each number; of many, of the first."""
        rows = {name: numbers_in(row, "mae", "low", "high") for name, row in self.breakdown(config).items()}
        found, several = [(name, row) for name, row in rows.items() if row][:MOST_SCALES], len(config["vocab"]) > 1
        return [Scale(*row, ROOM * row[2] or 1, shown, name if several else "") for name, row in found]

    def remarks(self, config: Config) -> list[str]:
        """R2 in words."""
        value, ends = (numbers_in(config["metrics"], *keys) for keys in (["r2"], ["low", "high"]))
        if not value:
            return ["R2 cannot be computed: the true numbers do not vary."]
        text = f"R2 {value[0]:.2f}" + (" (95 % interval: {:.2f} to {:.2f})".format(*ends) if ends else "")
        if value[0] <= 0:
            return [f"{text}: no better than always answering the mean."]
        return [f"{text}: {percent(value[0], 0)} of the variation is explained."]

    def reliability(self, config: Config) -> str:
        """Between which numbers its answers lie."""
        if not config["range"]["bounded"]:
            return "Its answers have no bounds: beyond the numbers of the training images they are guesses."
        ends = [f"{name} {shown(low)} to {shown(high)}" for name, (low, high) in self.ranges(config).items()]
        return f"Its answers never lie outside these ranges: {some_of(ends, MOST_NAMED)}."

    def label(self, text: str, vocab: Sequence[str]) -> str:
        """ "53.8", or "diameter 53.8, x 0.4"; a text that is no number stays as it is."""
        try:
            numbers = [shown(number) for number in numbers_of(text)]
        except ValueError:
            return text
        named = len(vocab) == len(numbers) > 1
        return ", ".join(map("{} {}".format, vocab, numbers) if named else numbers)

    def described(self, config: Config) -> dict[str, Any]:
        """The figures, and the range of each number."""
        ranges = self.ranges(config).items()
        ends = {"low": {name: low for name, (low, _) in ranges}, "high": {name: high for name, (_, high) in ranges}}
        return super().described(config) | {"range": ends | {"bounded": config["range"]["bounded"]}}
