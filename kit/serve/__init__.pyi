from .server import Settings, run
from .space import write_space
from .webpage import page

__all__ = [
    "Settings",
    "page",
    "run",
    "write_space",
]
