"""One class an image: the likeliest, with its calibrated probability. The main figure is the error rate."""

from collections.abc import Sequence
from typing import Any

from kit.tasks.base import LIKE, Config, Prediction, Task, numbers_in
from kit.tasks.text import CLASSIFICATION, listed, one_in, percent

MAX_SHOWN = 5
# Of images to calibrate on. On photos of pets, the probability of the predicted class differs from that calibrated on
# 185 images by 1 to 5 points on average with 20, by 2 with 80, by 1 with 120.
ENOUGH = 100
FAR = 4.0


class Classification(Task):
    """One class an image."""

    name, headline, heading = CLASSIFICATION, "error_rate", "Error rate"
    joiner = " or "
    fewest, is_rate = 2, True
    recipe_fields = ("label_smoothing", "class_weights", "sampler")
    purpose = "Assigns one of these classes to an image"
    limit = "It knows only these classes and assigns one of them to any image, whatever the image shows."
    answer_columns = (("prediction", "label"), ("probability", "probability"))
    most_columns = 0
    json_fields = ("label", "probability", "probabilities", "plain")
    figures = ("n", "precision", "recall", "f1")
    onnx_activation = "Softmax <axis = 1>"
    published = ("most_confused",)
    score = staticmethod(percent)

    def answer(self, outputs: dict[str, float], config: Config) -> dict[str, Any]:
        """The class of the highest probability."""
        best = max(outputs, key=outputs.get)
        return {"label": best, "probability": outputs[best], "probabilities": outputs}

    def activation(self, logits: Any) -> Any:
        """Softmax."""
        return logits.softmax(1)

    def changed(self, outputs: Any, expected: Any) -> int:
        """For how many images another class has the highest probability."""
        return int((outputs.argmax(1) != expected.argmax(1)).sum())

    def parts(self, one: Prediction, most: int = 1) -> list[tuple[str, str]]:
        """The likeliest classes."""
        return [(name, percent(value)) for name, value in one.top(most)]

    def groups(self, one: Prediction, config: Config) -> dict[str, list[str]]:
        """The likeliest classes."""
        return {"Most likely classes": [name for name, _ in one.top(MAX_SHOWN)]}

    def ability(self, vocab: Sequence[str]) -> str:
        """ "Tells cat from dog", or "Tells 37 kinds apart: Abyssinian, Bengal, Birman and 34 more"."""
        if len(vocab) == 2:
            return "Tells {} from {}".format(*map(listed, zip(vocab)))
        return f"Tells {len(vocab):,} kinds apart: {listed(vocab)}"

    def record(self, config: Config) -> str:
        """How many photos it is wrong on; without a mistake, the upper end of the interval."""
        found = numbers_in(config["metrics"], "error_rate", "n", "high")
        if not found or not 0 <= found[0] <= 1:
            return ""
        rate, n, high = found
        if rate == 1:
            return f"wrong on each of {n:,.0f} photos"
        if rate > 0:
            return f"wrong on {one_in(rate)} {LIKE}"
        limit = f", so wrong on at most {one_in(high, at_most=True)} {LIKE}" if 0 < high < 1 else ""
        return f"no mistake on {n:,.0f} photos{limit}"

    def doubt(self, one: Prediction, config: Config) -> float:
        """The probability of all other classes together."""
        return 1 - one.probability

    def remarks(self, config: Config) -> list[str]:
        """How many predictions are wrong."""
        found = numbers_in(config["metrics"], "error_rate", "n")
        return [f"{found[0] * found[1]:,.0f} of {found[1]:,.0f} predictions are wrong."] if found else []

    def reliability(self, config: Config) -> str:
        """Whether probabilities are calibrated, and how well."""
        found, doubts = numbers_in(config.get("calibration"), "error_after", "n", "error_before"), self.doubts(config)
        text = "A probability is the model's own estimate, not a measured frequency."
        if config["temperature"] != 1 and found:
            errors = "the expected calibration error is {:.3f} (cross-fitted, n={}), without calibration {:.3f}"
            text = f"Probabilities are calibrated (temperature {config['temperature']:.2f}): {errors.format(*found)}."
        return f"{text} {doubts}".strip()

    def doubts(self, config: Config) -> str:
        """That they were calibrated on few images, or that the network's own ones were far off."""
        found, temperature, lines = numbers_in(config.get("calibration"), "n"), config["temperature"], []
        if found and found[0] < ENOUGH:
            images = "1 image" if found[0] == 1 else f"{found[0]:.0f} images"
            lines.append(f"Probabilities are not reliable: there were only {images} to calibrate them on.")
        if not 1 / FAR < temperature < FAR:
            lines.append(
                f"The network's own probabilities are far from the share of right predictions (temperature "
                f"{temperature:.2f}): rely on the class rather than on its probability."
            )
        return " ".join(lines)
