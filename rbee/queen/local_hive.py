"""The hive on the queen's own machine, as her child: watched, and started again when it is needed."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from collections.abc import Awaitable, Callable

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.queen.hive_process import HOST, HiveLauncher, HiveProcess, free_port, tail

log = logging.getLogger(__name__)

KILL_AFTER_S = 5.0
FIRST_DELAY_S = 0.5
LAST_DELAY_S = 10.0

OnUp = Callable[[str, str], Awaitable[None]]
OnDown = Callable[[str], Awaitable[None]]


class LocalHive:
    """Own the hive of node `localhost`.

    Args:
        launched: its first life, None where it could not be launched.
        port: where it should listen; where that is taken, the next free port.
        start_timeout_s: how long it may take to bind its port.
    """

    def __init__(
        self, launcher: HiveLauncher, launched: HiveProcess | None, *, port: int, start_timeout_s: float
    ) -> None:
        self.log_path = launcher.log_path
        self._launcher = launcher
        self._wanted_port = port
        self._start_timeout_s = start_timeout_s
        self._life = launched
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._on_up: OnUp | None = None
        self._on_down: OnDown | None = None
        self._delay_s = 0.0
        self._ended_at = 0.0
        self._ending = False

    @property
    def pid(self) -> int | None:
        """Give the process id while it lives."""
        return self._life.process.pid if self._life is not None else None

    @property
    def moved_to(self) -> int | None:
        """Give the port it listens on if that is not the one that was asked for."""
        if self._life is None or self._wanted_port in (self._life.port, 0):
            return None
        return self._life.port

    def attach(self, on_up: OnUp, on_down: OnDown) -> None:
        """Tell *on_up* its address and key whenever it serves, *on_down* the reason whenever it ended."""
        self._on_up, self._on_down = on_up, on_down

    async def ensure(self) -> None:
        """Return when it serves, after starting it if it does not run. Raises RbeeError with what its log says."""
        if self._starting is None or (self._starting.done() and self._life is None):
            self._starting = asyncio.create_task(self._start(), name="local hive")
        await asyncio.shield(self._starting)

    async def reap(self, *, told: bool, within_s: float) -> bool:
        """Wait for its end, and kill it if that does not come; tell whether it went by itself.

        *told* says that it was asked to shut down already; else it gets a SIGTERM now.
        """
        self._ending = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        life = self._life
        if life is None:
            return True
        if not told:
            life.process.terminate()
        by_itself = await _ended(life.process, within_s)
        if not by_itself:
            log.warning("the local hive did not end and is killed", extra={"fields": {"pid": life.process.pid}})
            life.process.kill()
        if self._watching is not None:
            await asyncio.gather(self._watching, return_exceptions=True)
        else:
            await self._put_away(life)
        return by_itself

    async def _start(self) -> None:
        if self._life is None:
            await asyncio.sleep(max(0.0, self._ended_at + self._delay_s - time.monotonic()))
            self._life = self._launcher.launch(free_port(self._wanted_port))
        while True:
            life = self._life
            assert life is not None
            try:
                port = await self._announced(life)
            except _PortTakenError:
                self._life = None
                self._life = self._launcher.launch(free_port(life.port + 1))
                continue
            except RbeeError:
                self._life = None
                self._backoff()
                raise
            break
        life.port = port
        if self.moved_to is not None:
            log.warning("port taken", extra={"fields": {"wanted": self._wanted_port, "hive_port": port}})
        self._watching = asyncio.create_task(self._watch(life), name="watch of the local hive")
        if self._on_up is not None:
            await self._on_up(f"http://{HOST}:{port}", self._launcher.key)

    async def _announced(self, life: HiveProcess) -> int:
        """Wait for its first words: its port. Raises RbeeError, or _PortTakenError."""
        life.reader = await life.line.open()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                words = await life.reader.read()
        except TimeoutError as error:
            raise await self._did_not_start(life, f"it did not serve within {self._start_timeout_s:g} s") from error
        if words is None:
            code = await asyncio.to_thread(life.process.wait)
            raise await self._did_not_start(life, f"it ended with code {code}")
        told = RbeeError.from_body(words)
        if told is not None and told.code is ErrorCode.PORT_IN_USE:
            await self._put_away(life)
            raise _PortTakenError
        if told is not None:
            await self._put_away(life)
            raise told
        port = words.get("port")
        if not isinstance(port, int):
            raise await self._did_not_start(life, f"it announced {words!r}")
        return port

    async def _did_not_start(self, life: HiveProcess, reason: str) -> RbeeError:
        await self._put_away(life)
        lines = await asyncio.to_thread(tail, self.log_path, life.log_start)
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"The hive on {LOCALHOST_NODE} could not be started: {reason}.",
            details={"log": str(self.log_path), "log_tail": lines},
            # One that was begun early wrote into the queen's log until it had its orders.
            hint=f"Its log says why: {self.log_path}" if lines else "The log of the queen says why.",
        )

    async def _watch(self, life: HiveProcess) -> None:
        """Wait for the end of a hive that served, and tell it."""
        assert life.reader is not None
        while await life.reader.read() is not None:
            pass
        await self._put_away(life)
        code = life.process.returncode
        self._life = None
        self._backoff()
        if not self._ending:
            log.error("the local hive ended", extra={"fields": {"pid": life.process.pid, "exit_code": code}})
        if self._on_down is not None:
            await self._on_down(f"the hive ended with code {code}; its log: {self.log_path}")

    async def _put_away(self, life: HiveProcess) -> None:
        """Leave neither a process nor a descriptor behind."""
        if life.reader is not None:
            life.reader.close()
        if not await _ended(life.process, 1.0):
            life.process.kill()
            await _ended(life.process, KILL_AFTER_S)

    def _backoff(self) -> None:
        """Start again soon, later after each end in a row; a life of a minute counts as a good one."""
        now = time.monotonic()
        lasted = now - self._ended_at
        self._delay_s = FIRST_DELAY_S if lasted > 60 else min(max(self._delay_s * 2, FIRST_DELAY_S), LAST_DELAY_S)
        self._ended_at = now


class _PortTakenError(Exception):
    """Raised when somebody took the port between our look and the hive's bind."""


async def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    """Wait for a process of ours and reap it; False if it still runs after *within_s* seconds."""
    try:
        await asyncio.to_thread(process.wait, within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
