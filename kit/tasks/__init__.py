"""Classification, multilabel, regression: what differs from task to task, each in one module behind one protocol.

tasks.of("multilabel").columns(["cat", "dog"])      # ["path", "prediction", "p_cat", "p_dog", "unlike", "error"]
"""

from kit.tasks.base import Prediction, Task
from kit.tasks.classification import Classification
from kit.tasks.multilabel import MultiLabel
from kit.tasks.regression import Regression

__all__ = ["Prediction", "Task", "of"]
TASKS: dict[str, Task] = {task.name: task for task in (Classification(), MultiLabel(), Regression())}


def of(name: str) -> Task:
    """The task of that name, as recipe.json and config.json spell it. Raises `KeyError` for any other."""
    return TASKS[name]
