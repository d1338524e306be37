"""Imports run one way, and nothing heavy is loaded before it is needed."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kit"
FILES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "data/README.md", "tests/bench/README.md")
FOUNDATION = {"errors", "recipe", "intervals", "fetch", "files", "manifest", "console", "offline"}
FOUNDATION |= {"tasks", "scores", "machine", "fonts", "signals", "processes"}
ROOMS = ["data", "features", "model", "train", "evaluate", "views", "bundle", "serve"]
WHOLE_LINE = {"missing", "runs", "pipeline", "unfinished", "cross_validation", "scale", "clean", "doctor", "cli"}
WHOLE_LINE |= {"explain", "__init__", "__main__"}
LIGHT = ["kit", "kit.recipe", "kit.data.images", "kit.manifest", "kit.bundle.predictor", "kit.bundle.map_batches"]
HEAVY = {"torch", "fastai", "pandas", "torchvision", "timm", "gradio", "matplotlib", "sklearn"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports, inside its functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "kit":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kit."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("kit.")}
    return found


def allowed_rooms(here: str) -> set[str]:
    if here == "mechanism":
        return {"mechanism"}
    return FOUNDATION if here in FOUNDATION else FOUNDATION | set(ROOMS[: ROOMS.index(here) + 1])


def test_imports_run_one_way():
    wrong = {
        path.relative_to(PACKAGE).as_posix(): imported_rooms(path) - allowed_rooms(room(path))
        for path in FILES
        if room(path) not in WHOLE_LINE
    }
    assert {path: rooms for path, rooms in wrong.items() if rooms} == {}


def test_only_what_explains_a_step_imports_the_training_by_hand():
    users = {room(path) for path in FILES if "mechanism" in imported_rooms(path)}
    assert users == {"mechanism", "explain"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_every_public_name_can_be_loaded_and_none_is_hidden_by_a_module(path):
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    public = getattr(package, "__all__", [])
    assert all(getattr(package, name) is not None for name in public)
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018
    modules = {other.stem for other in path.parent.glob("*.py")} - {"__init__"}
    packages = {other.parent.name for other in path.parent.glob("*/__init__.py")}
    assert modules & set(public) - packages == set()


def heavy_after(code: str) -> list[str]:
    """The heavy packages that a fresh process has loaded after it ran `code`."""
    told = f"import sys; {code}; print(*(set(sys.modules) & {HEAVY!r}))"
    return subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()


def test_light_modules_and_all_commands_together_load_nothing_heavy():
    imports = "; ".join(f"import {module}" for module in LIGHT)
    assert heavy_after(f"{imports}; from kit.cli.main import application; application()") == []


def named_paths(document: str) -> set[str]:
    """The files and folders of the repository that a document names or links to; NAME stands for any."""
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.])(?:kit|apps|data|tests|\.ci)/[\w./-]*[\w/]", text)
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    found = [ROOT / path for path in named if "NAME" not in path] + [(ROOT / document).parent / path for path in linked]
    return {path.resolve().relative_to(ROOT).as_posix() for path in found}


def test_every_path_in_a_document_exists():
    named = ((document, path) for document in DOCUMENTS for path in sorted(named_paths(document)))
    assert [(document, path) for document, path in named if not (ROOT / path).exists()] == []


def test_the_file_map_has_each_module_and_nothing_else():
    lines = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## File map")[1].split("```")[1].splitlines()
    named, folder = set(), ""
    for line in filter(None, lines):
        name = line.split()[0]
        named.add(folder + name if line.startswith(" ") else name)  # an indented name belongs to the folder above it
        folder = folder if line.startswith(" ") else name
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    as_a_whole = ("kit/cli/", "kit/mechanism/", "kit/serve/space_files/")
    modules = {path.relative_to(ROOT).as_posix() for path in FILES if path.name != "__init__.py"}
    assert sorted(name for name in modules - named if not name.startswith(as_a_whole)) == []
