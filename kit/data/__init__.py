"""From labelled images to fastai DataLoaders: labels, table, splits, checks, DataBlock, and the image loader."""

from typing import Any

import lazy_loader

_getattr, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
RENAMED = {"told": "table_args", "travel": "trace_sample", "make_resident": "cache_images"}


def __getattr__(name: str) -> Any:
    """A public name; one of version 0.1 that was renamed still works, with a `DeprecationWarning`."""
    if name not in RENAMED:
        return _getattr(name)
    import warnings

    new = RENAMED[name]
    warnings.warn(f"kit.data.{name} is now kit.data.{new}", DeprecationWarning, stacklevel=2)
    return _getattr(new)
