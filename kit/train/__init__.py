"""Training a Learner: phases, precision, history."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "History": "kit.train.history",
        "MixedPrecision": "kit.train.precision",
        "fine_tune": "kit.train.phases",
        "seed_everything": "kit.train.phases",
    },
)
