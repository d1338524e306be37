"""From a Learner to honest numbers and pictures."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Evaluation": "kit.evaluate.evaluation",
        "compare": "kit.evaluate.comparison",
        "Result": "kit.evaluate.result",
        "draw_overview": "kit.evaluate.pictures",
        "draw_predictions": "kit.evaluate.pictures",
        "evaluate": "kit.evaluate.evaluation",
        "evaluate_views": "kit.evaluate.tta",
    },
)
