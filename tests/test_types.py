"""The public names as editors and type checkers see them: each one is found and has a type, and a script is checked."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNTYPED = ("Any", "def (*Any, **Any)")


def public_names(stub: Path) -> list[str]:
    """The names in the stub's `__all__`, each with its package."""
    package = ".".join(stub.parent.relative_to(ROOT).parts)
    [names] = [node.value for node in ast.parse(stub.read_text()).body if isinstance(node, ast.Assign)]
    return [f"{package}.{name}" for name in ast.literal_eval(names)]


def test_every_public_name_has_a_type_and_a_users_script_passes_mypy(tmp_path):
    from mypy import api

    names = [name for stub in sorted((ROOT / "kit").rglob("__init__.pyi")) for name in public_names(stub)]
    packages = sorted({name.rpartition(".")[0] for name in names})
    lines = [f"import {package}" for package in packages] + [f"reveal_type({name})" for name in names]
    reveal = tmp_path / "reveal.py"
    reveal.write_text("\n".join(lines) + "\n")
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    output, errors, _ = api.run([*config, str(reveal), str(ROOT / "tests" / "user_script.py")])
    assert errors == ""
    assert [line for line in output.splitlines() if ": error: " in line] == []
    types = re.findall(r'Revealed type is "(.*)"', output)
    assert [name for name, found in zip(names, types, strict=True) if found.startswith(UNTYPED)] == []
