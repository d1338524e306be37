"""From what people have to fastai DataLoaders: labels, table, splits, check, DataBlock, and the one image loader."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "blocks": "kit.data.datablock",
        "check": "kit.data.audit",
        "draw_check": "kit.data.looks",
        "folds": "kit.data.splits",
        "is_cat": "kit.data.labels",
        "make_resident": "kit.data.resident",
        "open_image": "kit.data.images",
        "parent_folder": "kit.data.labels",
        "pattern": "kit.data.labels",
        "show_batch": "kit.data.datablock",
        "survey": "kit.data.sources",
        "table": "kit.data.sources",
        "told": "kit.data.sources",
        "travel": "kit.data.datablock",
    },
)
