"""The tasks in the queen's hands: taken in, found again by id, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.auth import OPERATOR
from rbee.errors import RbeeError
from rbee.queen.admission import Load, refusal
from rbee.queen.errand import EdgeRequest
from rbee.queen.refusals import Refusal
from rbee.queen.seating import Means
from rbee.queen.tasks import Task

log = logging.getLogger(__name__)
ACKNOWLEDGED_WITHIN_S = 5.0


class TaskBoard:
    """All tasks from acceptance to end.

    Args:
        aliases: short names for model references, for whoever reads a request.
        max_tasks: how many may be in hand at once; *max_tasks_per_client* of each client, None for no such limit.
    """

    def __init__(
        self, means: Means, *, aliases: Mapping[str, str], max_tasks: int, max_tasks_per_client: int | None
    ) -> None:
        self._means = means
        self.aliases = aliases
        self._max_tasks = max_tasks
        self._max_tasks_per_client = max_tasks_per_client
        self._of_client: Counter[str] = Counter()
        self._tasks: dict[str, Task] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._tasks)

    def accept(self, request: TaskRequest | EdgeRequest, client: str, *, draining: bool) -> Task:
        """Take a task of *client* in; hand it to `done` when it has ended.

        Raises RbeeError: DRAINING, QUEUE_FULL, or why no node will ever run it as the fleet is now.
        """
        refused = refusal(
            Load(len(self._tasks), self._of_client[client], draining),
            max_tasks=self._max_tasks,
            max_tasks_per_client=self._max_tasks_per_client,
        )
        if refused is not None:
            raise refused
        task = Task(request, self._means, client)
        if task.wish.node is not None and self._means.fleet.registry.hive(task.wish.node) is None:
            raise self._unplaceable(task) or AssertionError("an unknown node was placed")
        # What is wrong with another people's request is told by its status too, when it is placed.
        if isinstance(request, TaskRequest) and self._means.readiness.settled(task.wish):
            error = self._unplaceable(task)
            if error is not None:
                raise error
        self._tasks[task.id] = task
        self._of_client[client] += 1
        self._empty.clear()
        return task

    @property
    def waiting(self) -> int:
        """Count the tasks that have no slot yet."""
        return len(self._means.turns)

    def reference(self, model: str) -> str:
        """Resolve an alias."""
        return self.aliases.get(model, model)

    def done(self, task: Task) -> None:
        """Let go of a task."""
        if self._tasks.pop(task.id, None) is not None:
            self._of_client[task.client] -= 1
            if not self._of_client[task.client]:
                del self._of_client[task.client]
        if not self._tasks:
            self._empty.set()

    async def cancel(self, task_id: str, client: str) -> None:
        """Cancel a task and wait until its slot is free, 5 s at most; one that is not there is fine.

        Only the operator may cancel tasks of others; to anybody else they are not there.
        """
        task = self._tasks.get(task_id)
        if task is None or client not in (task.client, OPERATOR):
            return
        task.stop(RbeeError(ErrorCode.CANCELED, f"Task {task_id} was canceled."))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                await task.ended.wait()

    async def until_empty(self) -> None:
        """Wait until no task is left."""
        await self._empty.wait()

    async def end_all(self) -> None:
        """End what still runs, and wait for it."""
        for task in list(self._tasks.values()):
            log.warning("task cut off", extra={"fields": {"task_id": task.id}})
            task.stop(
                RbeeError(ErrorCode.DRAINING, "The queen is stopping and could not wait for this task any longer.")
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                await self._empty.wait()

    def _unplaceable(self, task: Task) -> RbeeError | None:
        decision = self._means.fleet.place(task.wish)
        return decision.error() if isinstance(decision, Refusal) else None
