from .audit import check
from .cached_dl import cache_images
from .datablock import blocks, show_batch, trace_sample
from .image_quality import draw_check
from .images import open_image
from .labels import is_cat, parent_folder, pattern
from .scan import changes
from .sources import survey, table, table_args
from .splits import folds

__all__ = [
    "blocks",
    "cache_images",
    "changes",
    "check",
    "draw_check",
    "folds",
    "is_cat",
    "open_image",
    "parent_folder",
    "pattern",
    "show_batch",
    "survey",
    "table",
    "table_args",
    "trace_sample",
]
