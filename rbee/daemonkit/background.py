"""Background work of a daemon: a loop that dies takes the daemon down, it is never silently gone."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)
EXIT_BUG = 70  # sysexits.h EX_SOFTWARE


class BackgroundTasks:
    """Start tasks and end them together.

    Use as an async context manager: leaving it cancels what still runs. A task that fails is a bug: it is logged
    with its traceback and the process ends with code 70, for its owner or systemd to start anew.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run *work* until it ends or the daemon does."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def __aenter__(self) -> BackgroundTasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.critical("BUG: background task %s died", task.get_name(), exc_info=error)
            logging.shutdown()
            os._exit(EXIT_BUG)
