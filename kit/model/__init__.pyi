from .architectures import find_architecture
from .build import learner
from .weights import load_weights

__all__ = [
    "find_architecture",
    "learner",
    "load_weights",
]
