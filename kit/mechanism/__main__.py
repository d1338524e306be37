"""List the files of kit.mechanism in reading order: `python -m kit.mechanism`; or make an exercise of one of them."""

import argparse
import ast
from pathlib import Path

from kit.mechanism import exercise

RUNGS = (
    "tensors", "perceptron", "activations", "losses", "gradient", "landscapes", "autograd", "layers", "convolution",
    "initializers", "optimizers", "schedules", "batches", "loop", "trace", "overfitting", "networks", "segmentation",
    "approximation", "search", "parallel", "precision", "transfer", "linear_probe", "lab",
)  # fmt: skip


def idea(rung: str) -> str:
    """Return the first sentence of a file's docstring after the colon, without importing the file."""
    source = (Path(__file__).parent / f"{rung}.py").read_text(encoding="utf-8")
    paragraph = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
    return paragraph.split(": ", 1)[-1].split(". ")[0].rstrip(".")


def main() -> None:
    """Print the list, or write an exercise."""
    parser = argparse.ArgumentParser("python -m kit.mechanism", description="Deep learning by hand, in files to read.")
    task = parser.add_subparsers(dest="command").add_parser("exercise", help="write functions of a file again")
    task.add_argument("rung", choices=RUNGS, metavar="FILE", help="for example autograd")
    task.add_argument("names", nargs="*", metavar="FUNCTION", help="the functions to write; all by default")
    task.add_argument("--out", type=Path, required=True, help="the folder to write to")
    options = parser.parse_args()
    if options.command == "exercise":
        try:
            removed = exercise.write(options.rung, options.names, options.out)
        except ValueError as error:
            parser.error(f"{error}")
        print(f"{options.out / options.rung}.py: write {', '.join(dict.fromkeys(removed))}")
        print(f"then: python -m pytest {options.out}")
        return
    print("Deep learning by hand, from one perceptron to fine_tune. Run one: python -m kit.mechanism.NAME\n")
    for number, rung in enumerate(RUNGS, 1):
        print(f"{number:>2}. {rung:<13} {idea(rung)}")
    print("\nWrite one yourself: python -m kit.mechanism exercise autograd --out FOLDER")


if __name__ == "__main__":
    main()
