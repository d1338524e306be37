from .search import Search, tune

__all__ = ["Search", "tune"]
