from .commands import clean, default_csv, find_issues, label, moves_of
from .moves import moves_back

__all__ = [
    "clean",
    "default_csv",
    "find_issues",
    "label",
    "moves_back",
    "moves_of",
]
