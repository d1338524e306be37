"""Early stopping that keeps the best weights: fastai's, without files and without printing to standard output.

callbacks = [StopEarly(patience=3), best := BestWeights()]
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

from fastai.vision.all import Callback, CancelFitException, EarlyStoppingCallback, TrackerCallback
from torch import Tensor, nn

from kit.console import say


class StopEarly(EarlyStoppingCallback):
    """fastai's EarlyStoppingCallback, which says so on standard error. Every phase is counted anew."""

    def after_epoch(self) -> None:
        """Look, and perhaps end this phase."""
        try:
            with redirect_stdout(io.StringIO()):
                super().after_epoch()
        except CancelFitException:
            say(f"early stopping: the validation loss was not lower for {self.patience} epochs (--patience)")
            raise


class BestWeights(TrackerCallback):
    """What fastai's SaveModelCallback does, over both phases and in memory: no file, no pickle, nothing printed.

    A phase begins from the best weights of the one before. NaN is never the best.
    """

    order = TrackerCallback.order + 1

    def __init__(self):
        super().__init__(monitor="valid_loss", reset_on_fit=False)
        self.kept: dict[str, Tensor] = {}

    def after_epoch(self) -> None:
        """Keep a copy where the validation loss is the lowest so far."""
        super().after_epoch()
        if self.new_best:
            self.kept = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def after_fit(self) -> None:
        """Go back to the best."""
        super().after_fit()
        self.put_back(self.model)

    def put_back(self, model: nn.Module) -> None:
        """The best weights, where there are any yet."""
        if self.kept:
            model.load_state_dict(self.kept)


@contextmanager
def best_weights_kept(model: nn.Module, callbacks: Iterable[Callback]) -> Iterator[None]:
    """Where training is broken off, too: fastai calls `after_fit` only at an end of its own."""
    try:
        yield
    except BaseException:
        for callback in callbacks:
            if isinstance(callback, BestWeights):
                callback.put_back(model)
        raise
