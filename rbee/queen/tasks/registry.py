"""Admit tasks, find them by id, and end them together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.auth import OPERATOR
from rbee.errors import RbeeError
from rbee.queen.scheduling.admission_queue import QueueLoad, check_capacity
from rbee.queen.tasks.task import QueenServices, Task
from rbee.queen.tasks.upstream_request import CompatRequest

log = logging.getLogger(__name__)
CANCEL_TIMEOUT_S = 5.0


class TaskRegistry:
    """All tasks from admission to end.

    Args:
        aliases: short names for model references.
        max_tasks: how many may be there at once; *max_tasks_per_client* of each client, None for no such limit.
    """

    def __init__(
        self, services: QueenServices, *, aliases: Mapping[str, str], max_tasks: int, max_tasks_per_client: int | None
    ) -> None:
        self.aliases = aliases
        self._services = services
        self._max_tasks = max_tasks
        self._max_tasks_per_client = max_tasks_per_client
        self._of_client: Counter[str] = Counter()
        self._tasks: dict[str, Task] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Return how many tasks have no slot yet."""
        return len(self._services.scheduler.queue)

    def reference(self, model: str) -> str:
        """Resolve an alias."""
        return self.aliases.get(model, model)

    @contextlib.contextmanager
    def admit(self, request: TaskRequest | CompatRequest, client: str, *, draining: bool) -> Iterator[Task]:
        """Admit a task of *client* for as long as the context lasts.

        Raises RbeeError: DRAINING, QUEUE_FULL, or why no node can run it as the fleet is now.
        """
        refused = check_capacity(
            QueueLoad(len(self._tasks), self._of_client[client], draining),
            max_tasks=self._max_tasks,
            max_tasks_per_client=self._max_tasks_per_client,
        )
        if refused is not None:
            raise refused
        task = Task(request, self._services, client)
        self._tasks[task.id] = task
        self._of_client[client] += 1
        self._empty.clear()
        try:
            yield task
        finally:
            del self._tasks[task.id]
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]
            if not self._tasks:
                self._empty.set()

    async def cancel(self, task_id: str, client: str) -> None:
        """Cancel a task and wait until its slot is free, 5 s at most; an unknown task is ignored.

        Only the operator may cancel tasks of others; for anybody else these do not exist.
        """
        task = self._tasks.get(task_id)
        if task is None or client not in (task.client, OPERATOR):
            return
        task.cancel(RbeeError(ErrorCode.CANCELED, f"Task {task_id} was canceled."))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await task.ended.wait()

    async def wait_until_empty(self) -> None:
        """Wait until no task is left."""
        await self._empty.wait()

    async def abort_all(self) -> None:
        """Cancel the tasks that still run, and wait for their end."""
        for task in list(self._tasks.values()):
            log.warning("task aborted", extra={"fields": {"task_id": task.id}})
            task.cancel(RbeeError(ErrorCode.DRAINING, "The queen is stopping and could not wait longer for this task."))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self._empty.wait()
