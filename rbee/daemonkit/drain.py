"""The shutdown of a daemon as a state: accepting, draining, closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

R = TypeVar("R")


class Drain(Generic[R]):
    """The shutdown of a daemon, which runs once, by a signal or the shutdown route.

    *ending* finishes or stops the work and returns the receipt; routes still respond while it runs, and `check`
    rejects new work. After it `closed` is set: endless streams end, and the server stops.
    """

    def __init__(self, ending: Callable[[], Awaitable[R]], *, name: str) -> None:
        self._ending = ending
        self._name = name
        self._task: asyncio.Task[R] | None = None
        self.draining = asyncio.Event()
        self.closed = asyncio.Event()

    def begin(self) -> asyncio.Task[R]:
        """Start the shutdown; later calls return the same task. `draining` is set before this returns."""
        if self._task is None:
            self.draining.set()
            self._task = asyncio.ensure_future(self._run())
        return self._task

    async def finish(self) -> R:
        """Start the shutdown and return its receipt."""
        return await asyncio.shield(self.begin())

    def check(self) -> None:
        """Raise RbeeError DRAINING during the shutdown."""
        if self.draining.is_set():
            raise RbeeError(ErrorCode.DRAINING, f"{self._name} is shutting down and accepts no new work.")

    async def _run(self) -> R:
        try:
            return await self._ending()
        finally:
            self.closed.set()
