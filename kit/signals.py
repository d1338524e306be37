"""Ctrl-C and SIGTERM end a run in order: at once, or where training can be continued exactly.

with Signals().handled() as signals: ...
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kit.errors import Terminated

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Signals:
    """SIGINT raises `KeyboardInterrupt` and SIGTERM `Terminated`.

    While `deferred` is true, the first of them is kept in `stop` instead, to be raised later; the second is raised.
    """

    def __init__(self):
        self.deferred = False
        self.stop: KeyboardInterrupt | Terminated | None = None

    def _handle(self, number: int, frame: Any) -> None:
        error = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if self.stop or not self.deferred:
            raise error
        self.stop = error

    def release(self) -> None:
        """Raise what was kept; from now on signals are raised at once."""
        self.deferred = False
        if self.stop:
            raise self.stop

    @contextmanager
    def handled(self) -> Iterator["Signals"]:
        """Handle the signals inside the block, in the main thread, where nothing else handles or ignores them."""
        here = threading.current_thread() is threading.main_thread()  # Python allows handlers in no other thread
        mine = [number for number, handler in USUAL.items() if here and signal.getsignal(number) == handler]
        for number in mine:
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number in mine:
                signal.signal(number, USUAL[number])
