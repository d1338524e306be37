"""Training a Learner: phases, precision, history."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Accumulation": "kit.train.callbacks",
        "BestWeights": "kit.train.stopping",
        "History": "kit.train.history",
        "RateCurve": "kit.train.rates",
        "check_log": "kit.train.logs",
        "draw_rates": "kit.train.rates",
        "find_rate": "kit.train.rates",
        "fine_tune": "kit.train.phases",
        "seed_everything": "kit.train.phases",
        "training_callbacks": "kit.train.callbacks",
        "training_in": "kit.train.precision",
    },
)
