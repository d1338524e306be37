"""Exercises: only bodies are taken out, and the tests judge the file in the folder."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from kit.mechanism import __main__ as ladder
from kit.mechanism import exercise

ROOM = Path(exercise.__file__).parent


def outer_functions(tree):
    """Functions and methods in order, without those inside other functions."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from outer_functions(node)


def around(source):
    """The source without the bodies of its functions, but with their docstrings."""
    tree = ast.parse(source)
    for function in outer_functions(tree):
        function.body = [ast.Expr(ast.Constant(ast.get_docstring(function)))]
    return ast.unparse(tree)


@pytest.mark.parametrize("rung", ladder.RUNGS)
def test_only_the_bodies_of_public_functions_are_taken_out(rung):
    source = (ROOM / f"{rung}.py").read_text()
    emptied, names = exercise.without_bodies(source)
    assert around(emptied) == around(source)
    pairs = zip(outer_functions(ast.parse(source)), outer_functions(ast.parse(emptied)), strict=True)
    changed = [new for old, new in pairs if ast.unparse(new) != ast.unparse(old)]
    assert names == [function.name for function in changed] and len(names) > 1
    assert all(ast.unparse(new.body[-1]) == f"raise NotImplementedError('{new.name}')" for new in changed)
    assert not {"main", "__init__"} & set(names)


def test_operators_are_to_be_written_and_private_helpers_are_not():
    _, names = exercise.without_bodies((ROOM / "autograd.py").read_text())
    assert {"__add__", "__neg__", "backward"} <= set(names)
    assert not {"_binary", "_topological_order", "__repr__"} & set(names)


def test_the_folder_holds_the_file_all_its_tests_and_a_conftest_that_puts_it_in_place(tmp_path):
    exercise.write("autograd", [], tmp_path / "new" / "folder")
    made = {path.name: path.read_text() for path in (tmp_path / "new" / "folder").iterdir()}
    tests = exercise.tests_of("autograd")
    assert [path.name for path in tests] == ["test_autograd.py", "test_agreement.py"]
    assert set(made) == {"autograd.py", "conftest.py", *(path.name for path in tests)}
    assert all(made[path.name] == path.read_text() for path in tests)
    assert 'spec_from_file_location("kit.mechanism.autograd"' in made["conftest.py"]


def test_every_rung_has_tests():
    for rung in ladder.RUNGS:
        assert all(path.is_file() for path in exercise.tests_of(rung)), rung


def test_tests_that_leave_gradients_to_another_file_bring_it_along():
    for rung in ladder.RUNGS:
        own, *others = exercise.tests_of(rung)
        if "test_agreement.py" in ast.get_docstring(ast.parse(own.read_text())):
            assert "test_agreement.py" in [path.name for path in others], rung


def test_only_the_named_functions_are_taken_out():
    emptied, names = exercise.without_bodies((ROOM / "layers.py").read_text(), ["backward"])
    assert set(names) == {"backward"} and len(names) > 1
    assert "return x @ as_leaf(self.weight, x).T" in emptied and "grad.T @ self.x" not in emptied


def test_what_cannot_be_made_is_refused_and_nothing_is_written_over(tmp_path):
    with pytest.raises(ValueError, match=r"losses.py has no function entropy; leave the names out to see all"):
        exercise.write("losses", ["entropy"], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert exercise.write("losses", ["accuracy"], tmp_path) == ["accuracy"]
    (tmp_path / "losses.py").write_text("my work")
    with pytest.raises(ValueError, match=r"losses.py is there already; choose another --out"):
        exercise.write("losses", [], tmp_path)
    assert (tmp_path / "losses.py").read_text() == "my work"


def test_without_the_repository_no_exercise_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(exercise, "TESTS", tmp_path / "none")
    with pytest.raises(ValueError, match="there are no tests at .*exercises are made in a copy of the repository"):
        exercise.write("losses", [], tmp_path)


def run(*arguments):
    return subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_the_tests_judge_the_file_in_the_folder(tmp_path):
    """Empty: fails. With the original body: passes. With a wrong body: fails, also in files that use it."""
    folder = tmp_path / "my exercise"
    made = run("kit.mechanism", "exercise", "activations", "relu", "--out", folder)
    assert made.stdout == f"{folder / 'activations'}.py: write relu\nthen: python -m pytest {folder}\n"
    mine = folder / "activations.py"
    todo, results = mine.read_text(), {}
    for name, body in (("empty", None), ("right", "return x.clamp(min=0)"), ("wrong", "return x.clamp(min=0.1)")):
        mine.write_text(todo.replace('raise NotImplementedError("relu")', body) if body else todo)
        results[name] = run("pytest", "-q", "-p", "no:cacheprovider", folder)
    assert [result.returncode for result in results.values()] == [1, 0, 1]
    assert "NotImplementedError: relu" in results["empty"].stdout
    again = run("kit.mechanism", "exercise", "activations", "--out", folder)
    assert again.returncode == 2 and "is there already" in again.stderr
