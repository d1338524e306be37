"""Training a Learner: phases, precision, history."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "History": "kit.train.history",
        "fine_tune": "kit.train.phases",
        "seed_everything": "kit.train.phases",
        "training_in": "kit.train.precision",
    },
)
