"""Names that are loaded when they are first used, so that `import kit` stays quick.

__getattr__, __dir__, __all__ = lazy(__name__, {"table": "kit.data.sources"})
"""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` for a package whose public `names` live in the modules given."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = names[name]
        with warnings.catch_warnings():
            # fastai's imports make torch warn about torch.jit: nothing that a user of kit could mend.
            warnings.simplefilter("ignore", FutureWarning)
            module = import_module(home)
        return module if home == f"{package}.{name}" else getattr(module, name)

    return get, lambda: sorted(names), sorted(names)
