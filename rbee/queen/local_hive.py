"""The hive on the queen's own machine, as her child: started early, watched, started again when it is needed.

It is launched before the queen's own imports, so that both start at the same time.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rbee.config.credentials import new_key
from rbee.config.paths import Paths, storage_error
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.lifeline import Lifeline, LifelineReader

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PORTS_TRIED = 100
TAIL_LINES = 8
KILL_AFTER_S = 5.0
FIRST_DELAY_S = 0.5
LAST_DELAY_S = 10.0
_HIDDEN = ("RBEE_API_KEY", "RBEE_QUEEN_")

OnUp = Callable[[str, str], Awaitable[None]]
OnDown = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class _Life:
    """One hive process: its port as asked for, and the line to it."""

    process: subprocess.Popen[bytes]
    line: Lifeline
    port: int
    log_start: int
    reader: LifelineReader | None = None


class LocalHive:
    """Own the hive of node `localhost`.

    Args:
        port: where it should listen; where that is taken, the next free port.
        environ: what it inherits; the queen's own key and settings are left out.
        start_timeout_s: how long it may take to bind its port.
    """

    def __init__(self, paths: Paths, *, port: int, environ: Mapping[str, str], start_timeout_s: float) -> None:
        self.key = new_key()
        self.log_path = paths.logs / "rbee-hive.log"
        self._paths = paths
        self._wanted_port = port
        self._environ = {k: v for k, v in environ.items() if not k.startswith(_HIDDEN)}
        self._start_timeout_s = start_timeout_s
        self._life: _Life | None = None
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

    def launch(self) -> None:
        """Start the process and do not wait for it; call from the main thread. Raises RbeeError."""
        self._launch(free_port(self._wanted_port))

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
            self.launch()
        while True:
            life = self._life
            assert life is not None
            try:
                port = await self._announced(life)
            except _PortTakenError:
                self._life = None
                self._launch(free_port(life.port + 1))
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
            await self._on_up(f"http://{HOST}:{port}", self.key)

    def _launch(self, port: int) -> None:
        line = Lifeline()
        try:
            log_start, process = self._spawn(port, line)
        except BaseException:
            line.close()
            raise
        line.spawned()
        self._life = _Life(process, line, port, log_start)

    def _spawn(self, port: int, line: Lifeline) -> tuple[int, subprocess.Popen[bytes]]:
        environ = {
            **self._environ,
            **line.env(),
            "RBEE_HOME": str(self._paths.home),
            "RBEE_HIVE_API_KEY": self.key,
        }
        program = hive_program()
        self._paths.make(self._paths.logs)
        try:
            with self.log_path.open("ab") as log_file:
                process = subprocess.Popen(
                    [program, "--host", HOST, "--port", str(port)],
                    env=environ,
                    pass_fds=(line.child_fd,),
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    start_new_session=True,
                )
                return log_file.tell(), process
        except OSError as error:
            raise storage_error(error, self.log_path) from error

    async def _announced(self, life: _Life) -> int:
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

    async def _did_not_start(self, life: _Life, reason: str) -> RbeeError:
        await self._put_away(life)
        lines = await asyncio.to_thread(tail, self.log_path, life.log_start)
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"The hive on {LOCALHOST_NODE} could not be started: {reason}.",
            details={"log": str(self.log_path), "log_tail": lines},
            hint=f"Its log says why: {self.log_path}",
        )

    async def _watch(self, life: _Life) -> None:
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

    async def _put_away(self, life: _Life) -> None:
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


def hive_program() -> str:
    """Find `rbee-hive`: beside this interpreter, else on the path. Raises RbeeError with the install command."""
    beside = Path(sys.executable).parent / "rbee-hive"
    found = str(beside) if beside.is_file() else shutil.which("rbee-hive")
    if found is None:
        raise RbeeError(
            ErrorCode.WORKER_BINARY_NOT_FOUND,
            f"The program rbee-hive is neither beside {sys.executable} nor on the path.",
            hint="Install it: pip install 'rbee[local]'; or run the queen with --local-hive false.",
        )
    return found


def free_port(first: int) -> int:
    """Give the first port from *first* up that can be bound; 0 stays 0. Raises RbeeError PORT_IN_USE."""
    if first == 0:
        return 0
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise
            return port
    raise RbeeError(
        ErrorCode.PORT_IN_USE, f"No port from {first} to {first + PORTS_TRIED - 1} is free for the local hive."
    )


def tail(path: Path, start: int = 0, lines: int = TAIL_LINES) -> list[str]:
    """Give the last lines of a log from byte *start* on; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


async def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    """Wait for a process of ours and reap it; False if it still runs after *within_s* seconds."""
    try:
        await asyncio.to_thread(process.wait, within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
