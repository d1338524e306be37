"""The uvicorn process: it lets go of connections that never ask for anything, and it stops in order.

Process(app, state, announce).run(sockets=[listener])

On SIGTERM: /v2/health/ready turns to 503 while everything is still served, for as long as a load balancer needs to
look; then nothing new is accepted, and what is under way is finished. A second signal ends it at once.
"""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from kit.serve.reply import App, State

CONNECTIONS = 1000
GRACE_SECONDS = 10
DRAIN_SECONDS = 1.0
HEADER_SECONDS = 10.0
TAKING_SECONDS = 30.0
LOOK_SECONDS = 1.0
FILES, SPARE = 300, 100


class Patient(H11Protocol):
    """A connection that is closed where a request's head does not arrive within `HEADER_SECONDS`, and cut off where
    nothing of an answer is taken for `TAKING_SECONDS`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """As uvicorn does it; and look, from then on, whether something is being asked."""
        super().connection_made(transport)
        self._waits_since, self._left, self._stuck, self._lost = time.monotonic(), 0, 0.0, False
        if len(self.connections) > self.config.limit_concurrency + SPARE:
            self.transport.abort()
        self._look()

    def connection_lost(self, error: Exception | None) -> None:
        """As uvicorn does it; and look no more."""
        super().connection_lost(error)
        self._lost = True

    def resume_writing(self) -> None:
        """As uvicorn does it: the client takes what it is sent."""
        super().resume_writing()
        self._stuck = 0.0

    def _look(self) -> None:
        if self._lost:
            return
        left = self.transport.get_write_buffer_size()
        self._stuck = self._stuck + LOOK_SECONDS if left and left >= self._left else 0.0
        self._left = left
        if self._stuck > TAKING_SECONDS:
            self.transport.abort()
        elif self.cycle is not None and not self.cycle.response_complete:
            self._waits_since = time.monotonic()
        elif time.monotonic() - self._waits_since > HEADER_SECONDS:
            self.transport.close()
        self.loop.call_later(LOOK_SECONDS, self._look)


class Process(uvicorn.Server):
    """A uvicorn server of one app. announce: called when it listens."""

    def __init__(self, app: App, state: State, announce: Callable[[], None]):
        settings = uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            log_config=None,
            access_log=False,
            # A header would let any client choose the address under which its wrong passwords are counted.
            proxy_headers=False,
            server_header=False,
            limit_concurrency=most_connections(),
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(settings)
        self.state, self.announce, self.leave_at = state, announce, float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.state.ready = True
        # A daemon: a tunnel that is still being opened keeps no server from stopping.
        threading.Thread(target=self.announce, daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end; a second one is not patient."""
        if not self.state.ready:
            self.should_exit = self.force_exit = True
        self.state.ready = False
        self.leave_at = time.monotonic() + (DRAIN_SECONDS if sig == signal.SIGTERM else 0.0)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now."""
        return await super().on_tick(counter) or time.monotonic() >= self.leave_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the pages' heartbeats go, and finish what is under way."""
        self.state.stopping.set()
        await super().shutdown(sockets)


def most_connections() -> int:
    """How many connections may be open: fewer than this process may open files. It may open more from now on."""
    try:
        import resource
    except ImportError:
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + SPARE + FILES
    if 0 <= soft < wanted:
        soft = min(wanted, hard) if hard >= 0 else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS if soft < 0 else max(1, min(CONNECTIONS, soft - SPARE - FILES))
