from .commands import explain
from .finished import Finished, read_finished
from .head import HeadByHand, head_by_hand
from .page import head_page, step_page
from .replay import Moment, replay_step
from .step import StepByHand, step_by_hand

__all__ = [
    "Finished",
    "HeadByHand",
    "Moment",
    "StepByHand",
    "explain",
    "head_by_hand",
    "head_page",
    "read_finished",
    "replay_step",
    "step_by_hand",
    "step_page",
]
