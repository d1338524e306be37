"""The public names as editors and type checkers see them: every one is found, and none has lost its type."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUBS = sorted((ROOT / "kit").rglob("__init__.pyi"))


def mypy(*arguments: object) -> str:
    from mypy import api

    return api.run(["--config-file", str(ROOT / "pyproject.toml"), *map(str, arguments)])[0]


def public(stub: Path) -> list[str]:
    """The names in the stub's `__all__`, each with its package."""
    package = ".".join(stub.parent.relative_to(ROOT).parts)
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.Assign):
            return [f"{package}.{name}" for name in ast.literal_eval(node.value)]
    raise AssertionError(f"{stub} has no __all__")


@pytest.mark.slow
def test_every_public_name_has_a_type_and_a_users_script_is_typed(tmp_path):
    names = [name for stub in STUBS for name in public(stub)]
    packages = sorted({name.rpartition(".")[0] for name in names})
    lines = [f"import {package}" for package in packages] + [f"reveal_type({name})" for name in names]
    (tmp_path / "names.py").write_text("\n".join(lines) + "\n")
    said = mypy("-p", "kit", tmp_path / "names.py", ROOT / "tests" / "user_script.py")
    assert [line for line in said.splitlines() if ": error: " in line] == []
    types = re.findall(r'Revealed type is "(.*)"', said)
    lost = [
        name for name, seen in zip(names, types, strict=True) if seen == "Any" or seen.startswith("def (*Any, **Any)")
    ]
    assert lost == []
