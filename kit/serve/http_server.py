"""The uvicorn server: limits for idle and slow connections, which uvicorn lacks, and a graceful shutdown.

Server(app, state, announce).run(sockets=[listener])

On SIGTERM, /v2/health/ready turns to 503 while everything is still served, long enough for a load balancer to notice.
Then nothing new is accepted, and requests in flight are finished. A second signal ends the process at once.
"""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kit.serve.responses import State

# Together with the files that requests open, fewer than the 1,024 that a process may usually have open.
MAX_CONNECTIONS, SPARE = 600, 100
GRACE_SECONDS, DRAIN_SECONDS = 10, 1.0
IDLE_SECONDS = 5.0
UNREAD_SECONDS = 30.0


class Protocol(H11Protocol):
    """An HTTP/1.1 connection with time limits. It is closed after one to two times `IDLE_SECONDS` without a complete
    request head, and (on Linux) after `UNREAD_SECONDS` in which the client reads nothing of the response."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Set the time limits of a new connection, and abort it if too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self.config.limit_concurrency + SPARE:
            transport.abort()
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            limit = int(UNREAD_SECONDS * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
        self.loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def _close_if_idle(self, last: object = None) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        now = (self.cycle, idle)
        if idle and now == last:
            self.transport.close()
        else:
            self.loop.call_later(IDLE_SECONDS, self._close_if_idle, now)


class Server(uvicorn.Server):
    """A uvicorn server with graceful shutdown. announce: called in a thread when the server listens."""

    def __init__(self, app: ASGIApp, state: State, announce: Callable[[], None]):
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_config=None,
            access_log=False,
            # With X-Forwarded-For, a client could choose the address under which its wrong passwords are counted.
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self.state, self.announce, self.exit_at = state, announce, float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, set `state.ready` and call `announce`."""
        await super().startup(sockets)
        self.state.ready = True
        # In a daemon thread: opening a tunnel may take long, and must not delay a shutdown.
        threading.Thread(target=self.announce, daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown at the first signal; exit immediately at the second."""
        if not self.state.ready:
            self.should_exit = self.force_exit = True
        self.state.ready = False
        self.exit_at = time.monotonic() + (DRAIN_SECONDS if sig == signal.SIGTERM else 0.0)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to shut down now; uvicorn calls this ten times a second."""
        return await super().on_tick(counter) or time.monotonic() >= self.exit_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the heartbeat streams, which clients keep open, then finish the requests in flight."""
        self.state.stopping.set()
        await super().shutdown(sockets)
