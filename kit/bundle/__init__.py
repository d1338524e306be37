"""What was learned as data: a folder of safetensors and JSON that predicts without the script that made it."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Prediction": "kit.bundle.prediction",
        "Predictor": "kit.bundle.predictor",
        "check_preparation": "kit.bundle.write",
        "learner": "kit.bundle.read",
        "load": "kit.bundle.read",
        "save": "kit.bundle.write",
    },
)
