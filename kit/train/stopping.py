"""Early stopping and best weights, as in fastai, but in memory and without printing to standard output.

callbacks = [StopEarly(patience=3), best := BestWeights()]
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

from fastai.vision.all import Callback, CancelFitException, EarlyStoppingCallback, TrackerCallback
from torch import Tensor, nn

from kit.console import say


class StopEarly(EarlyStoppingCallback):
    """fastai's EarlyStoppingCallback with a message on standard error. Each phase counts its own epochs."""

    def after_epoch(self) -> None:
        """End this phase where the validation loss no longer improves."""
        try:
            with redirect_stdout(io.StringIO()):
                super().after_epoch()
        except CancelFitException:
            say(f"early stopping: the validation loss was not lower for {self.patience} epochs (--patience)")
            raise


class BestWeights(TrackerCallback):
    """fastai's SaveModelCallback over both phases and in memory: no file, no pickle, nothing printed.

    A phase starts from the best weights of the phase before. A loss of NaN is never the best.
    """

    order = TrackerCallback.order + 1

    def __init__(self):
        super().__init__(monitor="valid_loss", reset_on_fit=False)
        self.best_weights: dict[str, Tensor] = {}

    def after_epoch(self) -> None:
        """Copy the weights where the validation loss is the lowest so far."""
        super().after_epoch()
        if self.new_best:
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def after_fit(self) -> None:
        """Load the best weights."""
        super().after_fit()
        self.load_best(self.model)

    def load_best(self, model: nn.Module) -> None:
        """Load the best weights into `model`, where an epoch has ended."""
        if self.best_weights:
            model.load_state_dict(self.best_weights)


@contextmanager
def best_weights_kept(model: nn.Module, callbacks: Iterable[Callback]) -> Iterator[None]:
    """Loads the best weights after an interruption too, for which fastai does not call `after_fit`."""
    try:
        yield
    except BaseException:
        for callback in callbacks:
            if isinstance(callback, BestWeights):
                callback.load_best(model)
        raise
