"""From DataLoaders to a fastai Learner: which network a name means, where its weights come from, how it is built."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "choose_architecture": "kit.model.choice",
        "find_architecture": "kit.model.architectures",
        "learner": "kit.model.build",
        "load_weights": "kit.model.weights",
    },
)
