"""Serve an application: bind, tell the owner, drain at signal time, end with code 0."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from rbee.daemonkit.drain import Drain
from rbee.daemonkit.http1 import BoundedHttp
from rbee.daemonkit.systemd import notify
from rbee.lifeline import OwnerLink

log = logging.getLogger(__name__)
GRACEFUL_CLOSE_S = 5
_GC_THRESHOLD: Final = 10_000  # more new objects than gone ones


class Server(uvicorn.Server):
    """A uvicorn server whose SIGTERM and SIGINT begin the drain, and which ends when the drain is done.

    A second signal ends it at once, with what is left cut off.

    Args:
        successor: whether a signal leaves new connections to the next daemon, which gets the same listening socket.
    """

    def __init__(
        self, config: uvicorn.Config, drain: Drain[Any], on_serving: Callable[[], None], *, successor: bool
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._on_serving = on_serving
        self._successor = successor
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving, then say so."""
        await super().startup(sockets=sockets)
        self._watch = asyncio.ensure_future(self._exit_when_closed())
        self._on_serving()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals ourselves: uvicorn would raise them again at the end and spoil the exit code."""
        loop = asyncio.get_running_loop()

        def on_signal(number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning("second signal: ending at once", extra={"fields": {"signal": number}})
            # Not force_exit: that would skip the lifespan's end, where resources are released.
            self.config.timeout_graceful_shutdown = 0
            self.should_exit = True
            return
        log.info("draining", extra={"fields": {"signal": number}})
        notify("STOPPING=1")
        if self._successor:
            self._leave_new_connections()
        self._drain.begin()

    def _leave_new_connections(self) -> None:
        """Take no more connections, and end each that there is after its present request."""
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
    successor: bool = False,
) -> None:
    """Run until the drain is done.

    With *successor*, somebody holds a copy of *sock* for the next daemon: new connections are its from the first
    signal on, instead of being answered that this one drains.

    *drain_of* is called inside the event loop, before the application's lifespan begins.
    The owner is told `{"port", "pid"}` and systemd READY once requests are answered; *then* is called after that.
    """
    port = sock.getsockname()[1]

    def on_serving() -> None:
        owner.tell({"port": port, "pid": os.getpid()})
        notify("READY=1")
        log.info("serving", extra={"fields": {"port": port}})
        if then is not None:
            then()

    async def run() -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            http=BoundedHttp,
            server_header=False,
            date_header=False,
            # A client is who it is: headers in which it says that it speaks for another one are not believed.
            proxy_headers=False,
            ws="websockets-sansio",
            ws_max_size=4 * 1024 * 1024,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACEFUL_CLOSE_S,
        )
        await Server(config, drain_of(), on_serving, successor=successor).serve(sockets=[sock])

    # What is there now stays: no later collection looks at it. The usual threshold has the collector look again and
    # again at the few hundred objects of requests that are under way, which took 8 % of the queen's time.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 10, 10)
    gc.enable()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
