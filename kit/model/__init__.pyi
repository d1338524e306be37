from .architectures import find_architecture
from .build import choose_architecture, learner
from .weights import load_weights

__all__ = [
    "choose_architecture",
    "find_architecture",
    "learner",
    "load_weights",
]
