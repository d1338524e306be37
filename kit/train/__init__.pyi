from .callbacks import Accumulation, BestWeights, training_callbacks
from .checkpoint import Checkpoint
from .history import History
from .logs import check_log, log_results
from .phases import fine_tune, seed_everything
from .precision import training_in
from .rates import RateCurve, draw_rates, find_rate

__all__ = [
    "Accumulation",
    "BestWeights",
    "Checkpoint",
    "History",
    "RateCurve",
    "check_log",
    "draw_rates",
    "find_rate",
    "fine_tune",
    "log_results",
    "seed_everything",
    "training_callbacks",
    "training_in",
]
