"""Keep one spare worker: a process that has imported everything and waits for its orders.

A spawn gives it the arguments, the key and the log of a worker, so that its start costs the load alone. It is a child
with a lifeline and the hive's mark like every worker, and never listed as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Final

from rbee.errors import RbeeError
from rbee.hive.workers.process import WorkerProcess, WorkerSpec
from rbee.lifeline import ORDERED

log = logging.getLogger(__name__)
FIRST_AFTER_S: Final = 2.0
TAKEN_WITHIN_S: Final = 1.0
BACKOFF_S: Final = 5.0
MAX_BACKOFF_S: Final = 600.0


class SpareWorker:
    """At most one spare.

    Args:
        home: the home of the hive.
        log_path: where the spare's output goes until it has orders.
    """

    def __init__(self, home: Path, log_path: Path) -> None:
        self._home = home
        self._log_path = log_path
        self._process: WorkerProcess | None = None
        self._ready: asyncio.Task[bool] | None = None
        self._program: Path | None = None
        self._not_before = time.monotonic() + FIRST_AFTER_S
        self._failures = 0
        self._closed = False
        self._changing = asyncio.Lock()

    async def ensure(self, program: Path) -> None:
        """Start a spare unless there is one; after one that died, wait longer each time."""
        async with self._changing:
            if self._process is not None and not self._process.running:
                self._drop("it ended")
            if self._closed or self._process is not None or time.monotonic() < self._not_before:
                return
            try:
                process = await WorkerProcess.start(
                    program, [ORDERED], env={}, home=self._home, log_path=self._log_path
                )
            except RbeeError as error:
                self._back_off(error.message)
                return
            self._process, self._program = process, program
            self._ready = asyncio.ensure_future(_is_spare_message(process))

    async def take(self, program: Path, spec: WorkerSpec, log_path: Path) -> WorkerProcess | None:
        """Make the spare the worker of *spec*; None where there is none that is ready, or it does not react."""
        async with self._changing:
            process, ready = self._process, self._ready
            if process is None or ready is None or not ready.done() or self._program != program:
                return None
            if not ready.result() or not process.running:
                self._drop("it ended")
                return None
            process.give_orders(spec.arguments(), spec.environment(), log_path)
            taken = False
            try:
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    taken = await _is_spare_message(process)
            except TimeoutError:
                pass
            finally:
                if not taken:
                    self._drop("it did not take its orders")
            if not taken:
                return None
            self._process = self._ready = None
            self._failures = 0
            return process

    async def close(self) -> None:
        """Kill the spare; none is started any more."""
        self._closed = True
        async with self._changing:
            process, self._process = self._process, None
            if self._ready is not None:
                self._ready.cancel()
            if process is not None:
                process.kill()
                await process.wait()

    def _drop(self, reason: str) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        if self._ready is not None:
            self._ready.cancel()
            self._ready = None
        process.kill()
        process.close()
        self._back_off(reason)

    def _back_off(self, reason: str) -> None:
        delay_s = min(BACKOFF_S * 2**self._failures, MAX_BACKOFF_S)
        self._failures += 1
        self._not_before = time.monotonic() + delay_s
        log.warning("no spare worker", extra={"fields": {"reason": reason, "next_try_s": delay_s}})


async def _is_spare_message(process: WorkerProcess) -> bool:
    """Wait for the next message of a spare; False where it is gone."""
    with contextlib.suppress(OSError):
        return "spare" in (await process.read_message() or {})
    return False
