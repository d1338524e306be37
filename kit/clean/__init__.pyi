from .commands import apply, clean, default_csv, find_issues, label, undo_apply

__all__ = [
    "apply",
    "clean",
    "default_csv",
    "find_issues",
    "label",
    "undo_apply",
]
