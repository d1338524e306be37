"""The model card: what the model is, what it was trained on, how sure its error rate is, and where it will fail.

text = card_text(config, evaluation)
"""

from typing import Any

from kit.evaluate.evaluation import Evaluation
from kit.manifest import CONVERTED

LIMITS = """- It knows only the classes above, and will name one of them for any image whatsoever.{unlike}
- The error rate holds for images like the validation images; for others (another camera, place, season) measure anew:
  `kit evaluate BUNDLE FOLDER`.
- {probability}"""
UNLIKE = """ It flags images that are not like its
  training images, and about {share:.0%} of those that are; it does not notice all others."""
PHOTOS = """The photos in `examples/` and `mistakes/` are validation images, made small and without metadata (no place,
no date, no name). They are shared with the bundle: whoever gets it, or may open its page, sees them. Share them only
if you may; `kit fine-tune --no-examples` leaves them out."""
NO_PHOTOS = "No photo is shared with this bundle (`--no-examples`)."

MEASURED_ON = {
    True: "validation images that no training image duplicates",
    False: "the images it was converted with; whether it was trained on them is not known",
}


def card_text(config: dict[str, Any], evaluation: Evaluation, photos: bool = True) -> str:
    """README.md of a bundle, in Markdown. photos: whether the bundle holds some of the validation images."""
    vocab, data = config["vocab"], config["data"]
    known = config["start"]["kind"] != CONVERTED
    names = ", ".join(vocab[:12]) + (f", ... ({len(vocab)} in all)" if len(vocab) > 12 else "")
    return f"""# {config["architecture"]["name"]}: {" or ".join(vocab) if len(vocab) <= 3 else f"{len(vocab)} classes"}

An image classifier for: {names}.

| | |
|---|---|
| error rate | **{evaluation.error_rate}** on {MEASURED_ON[known]} |
| network | {config["architecture"]["name"]} ({config["architecture"]["library"]}), fine-tuned |
| started from | {config["start"]["origin"]} |
| trained on | {f"{data['train']} images; {data['valid']} others validated" if known else "not known"} |
| sees | {config["image"]["size"]} x {config["image"]["size"]} pixels, RGB ({config["image"]["resize"]}) |

{_class_table(evaluation)}

{_confusions(evaluation)}
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
    flagged, calibration = config["unknown"].get("flagged"), config["calibration"]
    probability = "A probability is the model's own opinion, not a measured frequency."
    if config["temperature"] != 1:
        probability = (
            f"Probabilities are calibrated (temperature {config['temperature']:.2f}): the expected calibration error\n"
            f"  is {calibration['error_after']:.3f} (cross-fitted, n={calibration['n']}), without that "
            f"{calibration['error_before']:.3f}."
        )
    unlike = "" if flagged is None else UNLIKE.format(share=flagged)
    return LIMITS.format(unlike=unlike, probability=probability)


def _class_table(evaluation: Evaluation) -> str:
    head = "| class | images | precision | recall | F1 |\n|---|---|---|---|---|"
    rows = [
        f"| {name} | {row.n:.0f} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} |"
        for name, row in zip(evaluation.per_class.index, evaluation.per_class.itertuples(), strict=True)
    ]
    return "\n".join([head, *rows]).replace("nan", "-")


def _confusions(evaluation: Evaluation) -> str:
    pairs = evaluation.most_confused()[:5]
    if not pairs:
        return ""
    lines = [f"- {true} taken for {said}: {times}" for true, said, times in pairs]
    return "\n".join(["Most confused:", "", *lines, ""])
