from .audit import check
from .datablock import blocks, show_batch, travel
from .images import open_image
from .labels import is_cat, parent_folder, pattern
from .looks import draw_check
from .resident import make_resident
from .sources import survey, table, told
from .splits import folds

__all__ = [
    "blocks",
    "check",
    "draw_check",
    "folds",
    "is_cat",
    "make_resident",
    "open_image",
    "parent_folder",
    "pattern",
    "show_batch",
    "survey",
    "table",
    "told",
    "travel",
]
