"""Run the background tasks of a daemon; one that fails ends the daemon instead of vanishing silently."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)
EXIT_BUG = 70  # sysexits.h EX_SOFTWARE


class BackgroundTasks:
    """A group of background tasks.

    Use it as an async context manager: leaving it cancels the tasks that still run. A task that fails is a bug: it is
    logged with its traceback, and the process exits with code 70, for its owner or systemd to restart it.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run *work* until it ends or the group is left."""
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
            log.critical("BUG: background task %s failed", task.get_name(), exc_info=error)
            logging.shutdown()
            os._exit(EXIT_BUG)
