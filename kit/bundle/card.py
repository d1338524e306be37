"""The model card: what the model is, what it was trained on, how sure its error rate is, and where it will fail.

text = card_text(config, result)
"""

from typing import Any

from kit.evaluate.evaluation import Evaluation
from kit.evaluate.result import Result
from kit.manifest import CONVERTED
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION, percent, shown, title_of

LIMITS = """- {first}{unlike}
- The figures hold for images like the validation images; for others (another camera, place, season) measure anew:
  `kit evaluate BUNDLE FOLDER`.
- {answer}"""
FIRST_LIMIT = {
    CLASSIFICATION: "It knows only the classes above, and will name one of them for any image whatsoever.",
    MULTILABEL: "It knows only the classes above, and may find them in any image whatsoever.",
    REGRESSION: "It answers with a number for any image whatsoever.",
}
WHAT = {
    CLASSIFICATION: "An image classifier for",
    MULTILABEL: "It says which of these are in an image, any number of them",
    REGRESSION: "It tells these numbers from an image",
}
UNLIKE = """ It flags images that are not like its
  training images, and about {share} of those that are; it does not notice all others."""
PHOTOS = """The photos in `examples/` and `mistakes/` are validation images, made small and without metadata (no place,
no date, no name). They are shared with the bundle: whoever gets it, or may open its page, sees them. Share them only
if you may; `kit fine-tune --no-examples` leaves them out."""
NO_PHOTOS = "No photo is shared with this bundle (`--no-examples`)."

MEASURED_ON = {
    True: "validation images that no training image duplicates",
    False: "the images it was converted with; whether it was trained on them is not known",
}


def card_text(config: dict[str, Any], result: Result, photos: bool = True) -> str:
    """README.md of a bundle, in Markdown. photos: whether the bundle holds some of the validation images."""
    vocab, data = config["vocab"], config["data"]
    known = config["start"]["kind"] != CONVERTED
    names = ", ".join(vocab[:12]) + (f", ... ({len(vocab)} in all)" if len(vocab) > 12 else "")
    return f"""# {config["architecture"]["name"]}: {title_of(vocab, result.task)}

{WHAT[result.task]}: {names}.

| | |
|---|---|
| {result.words} | **{result.headline}** on {MEASURED_ON[known]} |
| network | {config["architecture"]["name"]} ({config["architecture"]["library"]}), fine-tuned |
| started from | {config["start"]["origin"]} |
| trained on | {f"{data['train']} images; {data['valid']} others validated" if known else "not known"} |
| sees | {config["image"]["size"]} x {config["image"]["size"]} pixels, RGB ({config["image"]["resize"]}) |

{_table(result)}

{_confusions(result)}
## Use it

    kit predict BUNDLE photo.jpg

    from kit import bundle
    bundle.load("BUNDLE").predict(["photo.jpg"])

The files are data, not code: `config.json`, and the weights as `model.safetensors`. Each is checked by its SHA-256.
`trained_on.txt` lists the SHA-256 of the training images, so that `kit evaluate` can leave them out.

{PHOTOS if photos else NO_PHOTOS}

## Limits

{_limits(config)}
"""


def _limits(config: dict[str, Any]) -> str:
    flagged = config["unknown"].get("flagged")
    unlike = "" if flagged is None else UNLIKE.format(share=percent(flagged, 0))
    return LIMITS.format(first=FIRST_LIMIT[config["task"]], unlike=unlike, answer=_about_answers(config))


def _about_answers(config: dict[str, Any]) -> str:
    """What a probability, or a number, is worth."""
    if config["task"] == REGRESSION:
        return _about_range(config["range"], config["vocab"])
    if config["task"] == MULTILABEL:
        fitted = config["thresholds_fit"]
        if fitted["f1_after"] <= fitted["f1_before"]:
            return "A class is said from a probability of 0.5 on."
        return (
            "Each class is said from a probability of its own on (`thresholds` in config.json). Fitted so, F1 is\n"
            f"  {fitted['f1_after']:.4f} (cross-fitted, n={fitted['n']}); with 0.5 for all, {fitted['f1_before']:.4f}."
        )
    if config["temperature"] == 1:
        return "A probability is the model's own opinion, not a measured frequency."
    calibration = config["calibration"]
    return (
        f"Probabilities are calibrated (temperature {config['temperature']:.2f}): the expected calibration error\n"
        f"  is {calibration['error_after']:.3f} (cross-fitted, n={calibration['n']}), without that "
        f"{calibration['error_before']:.3f}."
    )


def _about_range(limits: dict[str, Any], vocab: list[str]) -> str:
    if not limits["bounded"]:
        return "A number comes without a bound: beyond those of training it is a guess."
    ends = zip(vocab, limits["low"], limits["high"], strict=True)
    return (
        "It never answers beyond "
        + "; ".join(f"{name} {shown(low)} to {shown(high)}" for name, low, high in ends)
        + "."
    )


def _table(result: Result) -> str:
    """Each class or number with its figures."""
    heads, rows = result.texts("-")
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return "\n".join([head, "|---" * len(heads) + "|", *lines])


def _confusions(result: Result) -> str:
    pairs = result.most_confused()[:5] if isinstance(result, Evaluation) else []
    if not pairs:
        return ""
    lines = [f"- {true} taken for {said}: {times}" for true, said, times in pairs]
    return "\n".join(["Most confused:", "", *lines, ""])
