"""The model card: what the model is, what it was trained on, how sure its error rate is, and where it will fail.

text = card_text(config, evaluation)
"""

from typing import Any

from kit.evaluate.evaluation import Evaluation

LIMITS = """- It knows only the classes above, and will name one of them for any image whatsoever.{unlike}
- The error rate holds for images like the validation images; for others (another camera, place, season) measure anew:
  `kit evaluate BUNDLE FOLDER`.
- {probability}"""
UNLIKE = """ It flags images that are not like its
  training images, and about {share:.0%} of those that are; it does not notice all others."""


def card_text(config: dict[str, Any], evaluation: Evaluation) -> str:
    """README.md of a bundle, in Markdown."""
    vocab, data = config["vocab"], config["data"]
    names = ", ".join(vocab[:12]) + (f", ... ({len(vocab)} in all)" if len(vocab) > 12 else "")
    return f"""# {config["architecture"]["name"]}: {" or ".join(vocab) if len(vocab) <= 3 else f"{len(vocab)} classes"}

An image classifier for: {names}.

| | |
|---|---|
| error rate | **{evaluation.error_rate}** on validation images that no training image duplicates |
| network | {config["architecture"]["name"]} ({config["architecture"]["library"]}), fine-tuned |
| started from | {config["start"]["origin"]} |
| trained on | {data["train"]} images; {data["valid"]} others validated |
| sees | {config["image"]["size"]} x {config["image"]["size"]} pixels, RGB ({config["image"]["resize"]}) |

{_class_table(evaluation)}

{_confusions(evaluation)}
## Use it

    kit predict BUNDLE photo.jpg

    from kit import bundle
    bundle.load("BUNDLE").predict(["photo.jpg"])

The files are data, not code: `config.json`, and the weights as `model.safetensors`. Each is checked by its SHA-256.
Images in `examples/`, if any, are validation images, made small and without metadata; share them only if you may.
`trained_on.txt` lists the SHA-256 of the training images, so that `kit evaluate` can leave them out.

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
