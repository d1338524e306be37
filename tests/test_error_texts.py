"""The house: no error says what no test has read.

Every text that is given to an error of kit/errors.py, or to a `RequestError` of the server, is looked up in the tests: four
words in a row of its longest literal part must stand in a string of one of them. Comments and docstrings do not count.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from kit import errors

TESTS = Path(__file__).parent
ROOT = TESTS.parent
REFUSAL = "RequestError"
KINDS = {REFUSAL} | {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.KitError)
}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
ROW = 4


class Module:
    """A module's errors, and what their texts are made of, followed through its variables, helpers and arguments."""

    def __init__(self, path: Path):
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        scopes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Module | FUNCTIONS)]
        self.scope = {node: scope for scope in scopes for node in ast.walk(scope)}  # the innermost comes last
        self.calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    def texts(self) -> Iterator[tuple[int, str]]:
        """The line of every error that is created, and the longest literal part of each text that it may have."""
        for call in sorted(self.calls, key=lambda call: call.lineno):
            place = 1 if named(call) == REFUSAL else 0
            if named(call) in KINDS and len(call.args) > place:
                longest = dict.fromkeys(max(form, key=len, default="") for form in self.forms(call.args[place]))
                yield from ((call.lineno, part) for part in longest if re.search("[a-z]", part))

    def forms(self, text: ast.AST | None, seen: frozenset = frozenset()) -> list[list[str]]:
        """The literal parts of a text, for each form that it may have; none where it comes from elsewhere."""

        def of(*nodes: ast.AST | None) -> list[list[str]]:
            return [form for node in nodes if node not in seen for form in self.forms(node, seen | {text})]

        match text:
            case ast.Constant(value=str(said)):
                return [[said]]
            case ast.JoinedStr(values=parts):
                filled = [part.value for part in parts if isinstance(part, ast.FormattedValue)]
                return [[part.value for part in parts if isinstance(part, ast.Constant)], *of(*filled)]
            case ast.BinOp(left=left, right=right, op=ast.Add()):
                return [a + b for a in of(left) or [[]] for b in of(right) or [[]]]
            case ast.IfExp(body=this, orelse=that):
                return of(this, that)
            case ast.Call(func=ast.Attribute(value=said)):
                return of(said)
            case ast.Call():
                return of(*self.returned(named(text)))
            case ast.Name(id=name):
                return of(*self.assigned(text), *self.passed(name, self.scope[text]))
        return []

    def assigned(self, name: ast.Name) -> list[ast.AST]:
        """What a variable was set to in its function, before it is used."""
        found = [node for node in ast.walk(self.scope[name]) if isinstance(node, ast.Assign)]
        found = [node for node in found if node.lineno < name.lineno]
        return [node.value for node in found if any(getattr(to, "id", "") == name.id for to in node.targets)]

    def returned(self, name: str) -> list[ast.AST | None]:
        """What a function of the module returns."""
        returns = [node for node in self.scope if isinstance(node, ast.Return)]
        return [node.value for node in returns if getattr(self.scope[node], "name", "") == name]

    def passed(self, name: str, helper: ast.AST) -> list[ast.AST]:
        """What the module's calls of a function give for one of its arguments."""
        names = [one.arg for one in helper.args.args if one.arg != "self"] if isinstance(helper, FUNCTIONS) else []
        if name not in names:
            return []
        calls = [call for call in self.calls if named(call) == helper.name]
        by_place = [call.args[names.index(name)] for call in calls if len(call.args) > names.index(name)]
        return by_place + [word.value for call in calls for word in call.keywords if word.arg == name]


def named(call: ast.Call) -> str:
    """The name of the function, the method or the class that is called."""
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def rows(text: str) -> list[str]:
    """Every four words of a text that follow on each other; all of a shorter one."""
    words = text.strip(" :.,;(){}'\"").split()
    return [" ".join(words[first : first + ROW]) for first in range(max(1, len(words) - ROW + 1))]


def strings(path: Path) -> Iterator[str]:
    """The strings of a test file, its docstrings left out, as a regular expression would find them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in told:
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            yield re.sub(r"\\(.)", r"\1", text)


def missing(kit: Path, tests: list[Path]) -> list[str]:
    """Where an error says what no test asserts."""
    read = "\n".join(text for path in tests for text in strings(path))
    found = ((path, line, text) for path in sorted(kit.rglob("*.py")) for line, text in Module(path).texts())
    return [
        f"{path.relative_to(kit.parent)}:{line}: {text.strip()}"
        for path, line, text in found
        if not any(row in read for row in rows(text))
    ]


def test_every_error_text_is_asserted():
    others = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    assert missing(ROOT / "kit", others) == []


MODULE = """
def check(value, many):
    if many:
        raise DataError(f"{value} of the first kind" if value else f"{value} of the second kind", fix="fix")
    problem = f"{value} of the third kind"
    raise RequestError(404, problem.replace("a", "b"), fix=reason())

def outer(value):
    def inner():
        raise ImageError(reason(value), fix="fix")
    raise ValueError("of no kind here")

def reason(value):
    return "one of " f"the fourth kind, {value}"

def refused(what):
    what = what.strip()
    return DataError(f"{what}", fix="fix")

refused("that of the fifth kind")
"""
READ = """
'''An image of the fourth kind.'''

def test_all():  # of the third kind
    assert said == r"x of the first\\ kind", b"of the second kind"
"""


def test_a_text_that_only_a_comment_or_a_docstring_holds_is_missing(tmp_path):
    package, test = tmp_path / "kit", tmp_path / "test_all.py"
    package.mkdir()
    (package / "module.py").write_text(MODULE)
    test.write_text(READ)
    lost = ["kit/module.py:6: of the third kind", "kit/module.py:10: one of the fourth kind,"]
    lost.append("kit/module.py:18: that of the fifth kind")
    assert missing(package, [test]) == lost
    test.write_text(READ.replace("x of the first", "x of the"))
    assert missing(package, [test]) == ["kit/module.py:4: of the first kind", *lost]
