"""A page and a REST API for a bundle, on one port, behind one guard."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Settings": "kit.serve.server",
        "page": "kit.serve.webpage",
        "run": "kit.serve.server",
        "write_space": "kit.serve.space",
    },
)
