from .commands import explain
from .finished import Finished, read_finished
from .head import HeadByHand, head_by_hand
from .replay import Moment, replay_step
from .step import StepByHand, step_by_hand

__all__ = [
    "Finished",
    "HeadByHand",
    "Moment",
    "StepByHand",
    "explain",
    "head_by_hand",
    "read_finished",
    "replay_step",
    "step_by_hand",
]
