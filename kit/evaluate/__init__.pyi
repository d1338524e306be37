from .classification import Evaluation
from .comparison import compare
from .evaluation import evaluate
from .pictures import draw_overview, draw_predictions
from .result import Result
from .tta import evaluate_views

__all__ = [
    "Evaluation",
    "Result",
    "compare",
    "draw_overview",
    "draw_predictions",
    "evaluate",
    "evaluate_views",
]
