"""Exercises: a file of the ladder whose functions are to be written again, and its tests, which tell whether they work.

    python -m kit.mechanism exercise autograd --out FOLDER              # everything
    python -m kit.mechanism exercise layers backward --out FOLDER       # only functions of this name
    python -m pytest FOLDER

Names, arguments and docstrings stay; the bodies are taken out. In FOLDER the tests use this file in place of the
original, other files of the ladder too. File and tests are made from those of the repository, so no second copy of
either has to be kept.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests" / "mechanism"
TESTS_BY_RUNG = {
    "autograd": ("autograd", "agreement"),
    "layers": ("layers", "agreement"),
    "convolution": ("convolution", "agreement"),
    "networks": ("networks", "agreement"),
    "loop": ("loop", "trace", "same_as_fastai"),
    "transfer": ("transfer", "same_as_fastai"),
    "precision": ("half_precision",),
    "segmentation": ("segmentation", "agreement"),
}
"""The tests of a file, where they are not one of the same name."""

KEPT = ("main", "__init__", "__post_init__", "__repr__", "__str__")

USE_THE_EXERCISE = """\
\"\"\"Puts {rung}.py of this folder in the place of kit.mechanism.{rung}.\"\"\"

import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("kit.mechanism.{rung}", Path(__file__).with_name("{rung}.py"))
sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""


def functions(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yield the functions and methods to write in order: all but those in `KEPT`, and private ones."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node)
        elif isinstance(node, ast.FunctionDef) and node.name not in KEPT and _body(node):
            private = node.name.startswith("_") and not node.name.endswith("__")
            yield from [] if private else [node]


def _body(function: ast.FunctionDef) -> list[ast.stmt]:
    """The statements after the docstring; none for a method that subclasses write."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return [] if body and "NotImplementedError" in ast.unparse(body[0]) else body


def without_bodies(source: str, names: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the source with the bodies of these functions (default: all) taken out, and the names of the functions."""
    lines = source.splitlines()
    chosen = [function for function in functions(ast.parse(source)) if not names or function.name in names]
    for function in reversed(chosen):
        body = _body(function)
        new = f'{" " * body[0].col_offset}raise NotImplementedError("{function.name}")'
        lines[body[0].lineno - 1 : body[-1].end_lineno] = [new]
    return "\n".join(lines) + "\n", [function.name for function in chosen]


def tests_of(rung: str) -> list[Path]:
    """Return the files of tests of one file of the ladder."""
    return [TESTS / f"test_{name}.py" for name in TESTS_BY_RUNG.get(rung, (rung,))]


def write(rung: str, names: Sequence[str], out: Path) -> list[str]:
    """Write the exercise, its tests and a conftest.py to the folder `out`; return the names of the functions to write.

    Raises `ValueError` for a file without tests, a name that is not in it, or files that are there already.
    """
    tests = tests_of(rung)
    if not tests[0].is_file():
        raise ValueError(f"there are no tests at {tests[0]}; exercises are made in a copy of the repository")
    source, removed = without_bodies(Path(__file__).with_name(f"{rung}.py").read_text(encoding="utf-8"), names)
    if unknown := set(names) - set(removed):
        raise ValueError(f"{rung}.py has no function {sorted(unknown)[0]}; leave the names out to see all")
    files = {f"{rung}.py": source, "conftest.py": USE_THE_EXERCISE.format(rung=rung)}
    files |= {path.name: path.read_text(encoding="utf-8") for path in tests}
    if there := [name for name in files if (out / name).exists()]:
        raise ValueError(f"{out / there[0]} is there already; choose another --out, so that no work is lost")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    return removed
