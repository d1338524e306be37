from .map_batches import ray_predictor
from .predictor import Prediction, Predictor
from .read import learner, load
from .write import check_preparation, room_for, save

__all__ = [
    "Prediction",
    "Predictor",
    "check_preparation",
    "learner",
    "load",
    "ray_predictor",
    "room_for",
    "save",
]
