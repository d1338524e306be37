"""The uvicorn server: limits for idle and slow connections, which uvicorn lacks, and a graceful shutdown.

Server(app, state, announce).run(sockets=[listener])

On SIGTERM, /v2/health/ready turns to 503 and each response says `Connection: close`, while everything is still served,
long enough for a load balancer to notice. Then no connection is accepted any more, but those that are open may send one
more request: a client that keeps a connection does not know that it is about to be closed. Then requests in flight are
finished. A second signal ends the process at once.
"""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kit.serve.responses import State

# Together with the files that requests open, fewer than the 1,024 that a process may usually have open.
MAX_CONNECTIONS, SPARE = 600, 100
# Together fewer than the 10 s after which `docker stop` kills a process.
DRAIN_SECONDS, LINGER_SECONDS, GRACE_SECONDS = 1.0, 3.0, 5
HEAD_SECONDS = 10.0
# More than the 60 s for which proxies usually keep connections: they should be the ones to close them.
KEEP_ALIVE_SECONDS = 75
UNREAD_SECONDS = 30.0


class Protocol(H11Protocol):
    """An HTTP/1.1 connection with time limits. It is closed after `HEAD_SECONDS` in which no complete request head
    arrives, after `KEEP_ALIVE_SECONDS` without a byte of the next request, and (on Linux) after `UNREAD_SECONDS` in
    which the client reads nothing of the response."""

    head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Set the time limits of a new connection, and abort it if too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self.config.limit_concurrency + SPARE:
            transport.abort()
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            limit = int(UNREAD_SECONDS * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
        self._limit_head()

    def data_received(self, data: bytes) -> None:
        """Stop the time limit when a request head is complete; start it when the next one begins."""
        super().data_received(data)
        self._limit_head()

    def on_response_complete(self) -> None:
        """Limit the time for the rest of a body that was answered before it had arrived."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._limit_head()

    def _limit_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            if self.head_timer:
                self.head_timer.cancel()
            self.head_timer = None
        elif not self.head_timer:
            self.head_timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)


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
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self.state, self.announce, self.exit_at, self.linger = state, announce, float("inf"), 0.0

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
        drain, self.linger = (DRAIN_SECONDS, LINGER_SECONDS) if sig == signal.SIGTERM else (0.0, 0.0)
        self.exit_at = time.monotonic() + drain

    async def on_tick(self, counter: int) -> bool:
        """Return whether to shut down now; uvicorn calls this ten times a second."""
        return await super().on_tick(counter) or time.monotonic() >= self.exit_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, end the heartbeat streams, which clients keep open, then finish the requests in flight."""
        self.state.stopping.set()
        await self._stop_listening(sockets or [])
        end = time.monotonic() + self.linger
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets after accepting all waiting connections, which the kernel would reset."""
        waiting = []
        for listener in sockets:
            with suppress(BlockingIOError):
                while True:
                    waiting.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        for connection in waiting:
            with suppress(OSError):  # the client has left
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)
