"""kit.mechanism as a whole: its imports, that every file is in the ladder, and that every file runs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from kit.mechanism import __main__ as ladder

ROOM = Path(ladder.__file__).parent
FILES = sorted(ROOM.glob("*.py"))
SWAPPED = {"lab", "linear_probe", "transfer"}
"""The files that use torch.nn, and say so."""


def imported(tree: ast.Module) -> set[str]:
    """Every module imported outside `main`, which may load data."""
    found = set()
    for node in ast.walk(ast.Module([part for part in tree.body if getattr(part, "name", "") != "main"], [])):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_the_package_imports_torch_and_the_standard_library_only():
    more = {"plots": {"matplotlib"}, "batches": {"sklearn"}}
    for path in FILES:
        allowed = {"torch", "kit"} | more.get(path.stem, set()) | set(sys.stdlib_module_names)
        assert {name.split(".")[0] for name in imported(ast.parse(path.read_text()))} <= allowed, path.stem


def test_layers_gradients_and_steps_are_made_by_hand_unless_a_file_says_so():
    for path in FILES:
        source = path.read_text()
        borrowed = [name for name in ("torch.nn", "torch.optim", "torch.autograd", "autocast(") if name in code(source)]
        borrowed += ["nn"] if "torch.nn" in imported(ast.parse(source)) else []
        assert path.stem in SWAPPED or not borrowed, (path.stem, borrowed)
        assert path.stem not in SWAPPED or "swapped for" in source or "swaps" in source, path.stem


def code(source: str) -> str:
    """A file without its docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def test_every_file_is_a_rung():
    assert {path.stem for path in FILES} - {"__init__", "__main__", "exercise", "plots"} == set(ladder.RUNGS)


def test_the_ladder_has_a_line_a_rung(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kit.mechanism"])
    ladder.main()
    lines = capsys.readouterr().out.strip().splitlines()[2:-2]
    assert [line.split()[1] for line in lines] == list(ladder.RUNGS)
    assert all(20 < len(ladder.idea(rung)) < 120 for rung in ladder.RUNGS)


@pytest.mark.slow
@pytest.mark.parametrize("rung", ladder.RUNGS)
def test_every_rung_runs_and_shows_its_idea(rung, tmp_path):
    done = subprocess.run([sys.executable, "-m", f"kit.mechanism.{rung}"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 1 <= len(done.stdout.strip().splitlines()) <= 40
    assert list(tmp_path.iterdir()) == []
