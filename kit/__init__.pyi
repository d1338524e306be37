from . import bundle, clean, data, evaluate, features, model, scale, serve, train
from .cross_validation import cross_validate
from .data.labels import is_cat
from .errors import KitError
from .pipeline import fine_tune, resume
from .recipe import Recipe
from .runs import Run
from .scale import tune

__version__: str

__all__ = [
    "KitError",
    "Recipe",
    "Run",
    "bundle",
    "clean",
    "cross_validate",
    "data",
    "evaluate",
    "features",
    "fine_tune",
    "is_cat",
    "model",
    "resume",
    "scale",
    "serve",
    "train",
    "tune",
]
