"""Names that are loaded when they are first used, so that `import kit` stays quick.

__getattr__, __dir__, __all__ = lazy(__name__, {"table": "kit.data.sources"})
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` for a package whose public `names` live in the modules given."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = names[name]
        return import_module(home) if home == f"{package}.{name}" else getattr(import_module(home), name)

    return get, lambda: sorted(names), sorted(names)
