"""Serve an application: report to the owner, drain on a signal, exit with code 0."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from rbee.daemonkit.connections import PER_ADDRESS, ConnectionLimits, raise_open_files
from rbee.daemonkit.drain import Drain
from rbee.daemonkit.http1 import BoundedHttp
from rbee.daemonkit.systemd import notify
from rbee.lifeline import OwnerLink
from rbee.observe.throttle import LogThrottle

log = logging.getLogger(__name__)
GRACEFUL_CLOSE_S = 5
_TICKS_A_SECOND: Final = 10
_GC_THRESHOLD: Final = 10_000  # allocations minus deallocations


class Server(uvicorn.Server):
    """A uvicorn server that starts to drain on SIGTERM and SIGINT, and stops when the drain is complete.

    A second signal stops it at once and aborts open requests.

    Args:
        limits: those of the connections, which *config* has as well.
        on_reload: called upon SIGHUP, which ends the daemon without it.
        successor: whether a signal leaves new connections to the next daemon, which gets the same listening socket.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain[Any],
        on_serving: Callable[[], None],
        *,
        limits: ConnectionLimits,
        on_reload: Callable[[], None] | None = None,
        successor: bool,
    ) -> None:
        super().__init__(config)
        self._on_reload = on_reload
        self._limits = limits
        self._drain = drain
        self._on_serving = on_serving
        self._successor = successor
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, then call *on_serving*."""
        await super().startup(sockets=sockets)
        self._watch = asyncio.ensure_future(self._exit_when_closed())
        self._on_serving()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals here: uvicorn would raise them again at the end and change the exit code."""
        loop = asyncio.get_running_loop()

        def on_signal(number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        handled = [signal.SIGINT, signal.SIGTERM, *([] if self._on_reload is None else [signal.SIGHUP])]
        before = {number: signal.signal(number, on_signal) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        """Look once a second for requests that come too slowly; return whether to stop."""
        if counter % _TICKS_A_SECOND == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedHttp):
                    connection.sweep()
            self._limits.report(time.monotonic())
        return await super().on_tick(counter)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            if self._on_reload is not None and not self._signals:
                self._on_reload()
            return
        self._signals += 1
        if self._signals > 1:
            log.warning("second signal: stopping at once", extra={"fields": {"signal": number}})
            # force_exit would skip the end of the lifespan, where resources are released.
            self.config.timeout_graceful_shutdown = 0
            self.should_exit = True
            return
        log.info("draining", extra={"fields": {"signal": number}})
        notify("STOPPING=1")
        if self._successor:
            self._leave_new_connections()
        self._drain.begin()

    def _leave_new_connections(self) -> None:
        """Accept no more connections, and close each open one after its current request."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _exit_when_closed(self) -> None:
        await self._drain.closed.wait()
        self.should_exit = True


def serve(
    app: ASGIApp,
    sock: socket.socket,
    drain_of: Callable[[], Drain[Any]],
    owner: OwnerLink,
    *,
    then: Callable[[], None] | None = None,
    on_reload: Callable[[], None] | None = None,
    successor: bool = False,
    max_connections_per_address: int = PER_ADDRESS,
) -> None:
    """Run until the drain is complete.

    Args:
        drain_of: returns the drain; called inside the event loop, before the application's lifespan begins.
        owner: receives `{"port", "pid"}` once requests are served; systemd gets READY=1.
        then: called after that.
        on_reload: called upon SIGHUP, which ends the daemon without it.
        successor: whether systemd holds a copy of *sock* for the next daemon: from the first signal on, new
            connections are left to it instead of being rejected as draining.
        max_connections_per_address: connections without an authenticated request so far.
    """
    port = sock.getsockname()[1]

    def on_serving() -> None:
        owner.tell({"port": port, "pid": os.getpid()})
        notify("READY=1")
        log.info("serving", extra={"fields": {"port": port}})
        if then is not None:
            then()

    # A relayed stream takes two files: one for its client, one for its worker.
    limits = ConnectionLimits(per_address=max_connections_per_address, total=raise_open_files() // 2)
    _throttle_remarks()

    async def run() -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            http=cast("type[asyncio.Protocol]", partial(BoundedHttp, limits=limits)),
            server_header=False,
            date_header=False,
            # X-Forwarded-For is not trusted.
            proxy_headers=False,
            ws="websockets-sansio",
            ws_max_size=4 * 1024 * 1024,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACEFUL_CLOSE_S,
        )
        server = Server(config, drain_of(), on_serving, limits=limits, on_reload=on_reload, successor=successor)
        await server.serve(sockets=[sock])

    # What exists now lives as long as the daemon: no later collection needs to scan it. With the default threshold the
    # collector scanned the objects of running requests over and over, which took 8 % of the queen's time.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 10, 10)
    gc.enable()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run())


def _throttle_remarks() -> None:
    """Bound what uvicorn remarks on the requests of strangers: one line for each that is no HTTP."""
    throttle = LogThrottle()
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: record.levelno != logging.WARNING or throttle.admit(),
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
