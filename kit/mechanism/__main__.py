"""List the files of kit.mechanism in reading order, with one line each: `python -m kit.mechanism`."""

import ast
from pathlib import Path

RUNGS = (
    "tensors", "perceptron", "activations", "losses", "gradient", "landscapes", "autograd", "layers", "convolution",
    "initializers", "optimizers", "schedules", "batches", "loop", "trace", "overfitting", "networks", "approximation",
    "search", "parallel", "precision", "transfer", "linear_probe",
)  # fmt: skip


def idea(rung: str) -> str:
    """Return the first sentence of a file's docstring after the colon, without importing the file."""
    source = (Path(__file__).parent / f"{rung}.py").read_text(encoding="utf-8")
    paragraph = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
    return paragraph.split(": ", 1)[-1].split(". ")[0].rstrip(".")


def main() -> None:
    """Print the list."""
    print("Deep learning by hand, from one perceptron to fine_tune. Run one: python -m kit.mechanism.NAME\n")
    for number, rung in enumerate(RUNGS, 1):
        print(f"{number:>2}. {rung:<13} {idea(rung)}")


if __name__ == "__main__":
    main()
