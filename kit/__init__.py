"""kit turns a folder of labelled images into a classifier that people can trust, share and see through.

import kit; run = kit.fine_tune("pets/images", label=kit.is_cat)
"""

from kit.lazy import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "KitError": "kit.errors",
        "Recipe": "kit.recipe",
        "Run": "kit.runs",
        "bundle": "kit.bundle",
        "cross_validate": "kit.cross_validation",
        "data": "kit.data",
        "evaluate": "kit.evaluate",
        "fine_tune": "kit.pipeline",
        "is_cat": "kit.data.labels",
        "model": "kit.model",
        "train": "kit.train",
    },
)
