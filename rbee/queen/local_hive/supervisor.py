"""Supervise the hive on the queen's own machine, a child process that is restarted when it is needed."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from collections.abc import Awaitable, Callable

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.logfile import tail
from rbee.queen.local_hive.process import HOST, HiveLauncher, HiveProcess, free_port

log = logging.getLogger(__name__)

KILL_AFTER_S = 5.0
FIRST_DELAY_S = 0.5
LAST_DELAY_S = 10.0
TAIL_LINES = 8

OnUp = Callable[[str, str], Awaitable[None]]
OnDown = Callable[[str], Awaitable[None]]


class LocalHive:
    """Own the hive of node `localhost`.

    Args:
        launched: its first process, None where it could not be launched.
        port: where it should listen; where that is taken, the next free port.
        start_timeout_s: how long it may take to bind its port.
    """

    def __init__(
        self, launcher: HiveLauncher, launched: HiveProcess | None, *, port: int, start_timeout_s: float
    ) -> None:
        self.log_path = launcher.log_path
        self._launcher = launcher
        self._configured_port = port
        self._start_timeout_s = start_timeout_s
        self._process = launched
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._on_up: OnUp | None = None
        self._on_down: OnDown | None = None
        self._delay_s = 0.0
        self._ended_at = 0.0
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Return the process id while it runs."""
        return self._process.process.pid if self._process is not None else None

    @property
    def moved_to(self) -> int | None:
        """Return the port it listens on if that is not the configured one."""
        if self._process is None or self._configured_port in (self._process.port, 0):
            return None
        return self._process.port

    def attach(self, on_up: OnUp, on_down: OnDown) -> None:
        """Call *on_up* with its address and key whenever it serves, *on_down* with the reason whenever it ended."""
        self._on_up, self._on_down = on_up, on_down

    async def ensure(self) -> None:
        """Wait until it serves; start it if it does not run. Raises RbeeError with the end of its log."""
        if self._starting is None or (self._starting.done() and self._process is None):
            self._starting = asyncio.create_task(self._start(), name="local hive")
        await asyncio.shield(self._starting)

    async def stop(self, *, told: bool, within_s: float) -> bool:
        """Wait for its end, and kill it if that does not come; return whether it ended by itself.

        *told* means that it has accepted a shutdown; else it gets a SIGTERM now.
        """
        self._ending = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        hive = self._process
        if hive is None:
            return True
        if not told:
            hive.process.terminate()
        by_itself = await _wait_for_exit(hive.process, within_s)
        if not by_itself:
            log.warning("local hive did not end and is killed", extra={"fields": {"pid": hive.process.pid}})
            hive.process.kill()
        if self._watching is not None:
            await asyncio.gather(self._watching, return_exceptions=True)
        else:
            await self._dispose(hive)
        return by_itself

    async def _start(self) -> None:
        if self._process is None:
            await asyncio.sleep(max(0.0, self._ended_at + self._delay_s - time.monotonic()))
            self._process = self._launcher.launch(free_port(self._configured_port))
        while True:
            hive = self._process
            assert hive is not None
            try:
                port = await self._wait_for_port(hive)
            except _PortTakenError:
                self._process = None
                self._process = self._launcher.launch(free_port(hive.port + 1))
                continue
            except RbeeError:
                self._process = None
                self._back_off()
                raise
            break
        hive.port = port
        if self.moved_to is not None:
            log.warning("port taken", extra={"fields": {"wanted": self._configured_port, "hive_port": port}})
        self._watching = asyncio.create_task(self._watch(hive), name="watch of the local hive")
        if self._on_up is not None:
            await self._on_up(f"http://{HOST}:{port}", self._launcher.key)

    async def _wait_for_port(self, hive: HiveProcess) -> int:
        """Wait for its first message, its port. Raises RbeeError, or _PortTakenError."""
        hive.reader = await hive.line.open()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                message = await hive.reader.read()
        except TimeoutError as error:
            raise await self._start_error(hive, f"it did not serve within {self._start_timeout_s:g} s") from error
        if message is None:
            code = await asyncio.to_thread(hive.process.wait)
            raise await self._start_error(hive, f"it ended with code {code}")
        error_ = RbeeError.from_body(message)
        if error_ is not None and error_.code is ErrorCode.PORT_IN_USE:
            await self._dispose(hive)
            raise _PortTakenError
        if error_ is not None:
            await self._dispose(hive)
            raise error_
        port = message.get("port")
        if not isinstance(port, int):
            raise await self._start_error(hive, f"it announced {message!r}")
        return port

    async def _start_error(self, hive: HiveProcess, reason: str) -> RbeeError:
        await self._dispose(hive)
        lines = await asyncio.to_thread(tail, self.log_path, TAIL_LINES, start=hive.log_start)
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"The hive on {LOCALHOST_NODE} could not be started: {reason}.",
            details={"log": str(self.log_path), "log_tail": lines},
            # A prestarted one writes into the queen's log until it has its arguments.
            hint=f"See its log: {self.log_path}" if lines else "See the log of the queen.",
        )

    async def _watch(self, hive: HiveProcess) -> None:
        """Wait for the end of a hive that served, and report it."""
        assert hive.reader is not None
        while await hive.reader.read() is not None:
            pass
        await self._dispose(hive)
        code = hive.process.returncode
        self._process = None
        self._back_off()
        if not self._ending:
            log.error("local hive ended", extra={"fields": {"pid": hive.process.pid, "exit_code": code}})
        if self._on_down is not None:
            await self._on_down(f"the hive ended with code {code}; its log: {self.log_path}")

    async def _dispose(self, hive: HiveProcess) -> None:
        """Leave neither a process nor a descriptor behind."""
        if hive.reader is not None:
            hive.reader.close()
        if not await _wait_for_exit(hive.process, 1.0):
            hive.process.kill()
            await _wait_for_exit(hive.process, KILL_AFTER_S)

    def _back_off(self) -> None:
        """Set the delay before the next start: it doubles with each end, unless the hive ran for a minute."""
        now = time.monotonic()
        lasted = now - self._ended_at
        self._delay_s = FIRST_DELAY_S if lasted > 60 else min(max(self._delay_s * 2, FIRST_DELAY_S), LAST_DELAY_S)
        self._ended_at = now


class _PortTakenError(Exception):
    """Raised when the port was taken between the check and the hive's bind."""


async def _wait_for_exit(process: subprocess.Popen[bytes], within_s: float) -> bool:
    """Wait for a child process and reap it; False if it still runs after *within_s* seconds."""
    try:
        await asyncio.to_thread(process.wait, within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
