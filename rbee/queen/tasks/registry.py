"""Admit tasks, find them by id, and end them together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import TaskRequest
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.client_view import reduced_error
from rbee.queen.keys.access import Client, check_limits
from rbee.queen.scheduling.admission_queue import QueueLoad, check_capacity, client_to_displace
from rbee.queen.tasks.activity import Activity
from rbee.queen.tasks.fallback import Fallbacks
from rbee.queen.tasks.task import QueenServices, Task
from rbee.queen.tasks.upstream_request import CompatRequest

if TYPE_CHECKING:
    from rbee.contracts.events import TaskRow
    from rbee.contracts.served import ServedModel

log = logging.getLogger(__name__)
CANCEL_TIMEOUT_S = 5.0
ENDED_KEPT = 100


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
        # The places taken, by client; a task that lost its place to another client has none until its end.
        self._places: Counter[str] = Counter()
        self._placed: dict[str, Task] = {}
        self._tasks: dict[str, Task] = {}
        self._ended: deque[Activity] = deque(maxlen=ENDED_KEPT)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Return how many tasks have no slot yet."""
        return len(self._services.scheduler.queue)

    def activity(self, most: int) -> list[TaskRow]:
        """List the tasks that have ended lately and those that have not, of these *most* of the first to come."""
        now, waiting = asyncio.get_running_loop().time(), self._services.scheduler.waiting
        running = itertools.islice(self._tasks.values(), most)
        ended = [activity.row(now) for activity in self._ended]
        return [*ended, *(task.activity.row(now, waiting.get(task.id)) for task in running)]

    def reference(self, model: str) -> str:
        """Resolve an alias."""
        return self.aliases.get(model, model)

    def of_client(self, client: str) -> int:
        """Return how many tasks of *client* have not ended."""
        return self._places[client]

    @contextlib.contextmanager
    def admit(
        self,
        request: TaskRequest | CompatRequest,
        client: Client,
        *,
        model: str,
        draining: bool,
        may_fetch: bool = True,
        served: ServedModel | None = None,
        fallbacks: Fallbacks | None = None,
    ) -> Iterator[Task]:
        """Admit a task of *client* for as long as the context lasts.

        Args:
            model: the name by which the client asks for it.
            may_fetch: whether the model may be fetched where it is not.
            served: the declared model that the client means; *fallbacks* are those to try in its place.

        Raises RbeeError: DRAINING, TOO_MANY_REQUESTS, QUEUE_FULL, or why no node can run it as the fleet is now.
        """
        try:
            self._check(client, draining=draining)
            task = Task(
                request, self._services, client, model=model, may_fetch=may_fetch, served=served, fallbacks=fallbacks
            )
        except RbeeError as error:
            fields = {"client": client.name, "code": error.code.value, "reason": error.message}
            log.warning("task refused", extra={"fields": fields})
            metrics.QUEEN_TASKS.add(1, error.code.value, client.name)
            raise error if client.operates else reduced_error(error) from error
        self._tasks[task.id] = self._placed[task.id] = task
        self._places[client.name] += 1
        self._empty.clear()
        try:
            yield task
        finally:
            del self._tasks[task.id]
            self._ended.append(task.activity)
            self._free_place(task)
            if not self._tasks:
                self._empty.set()

    async def cancel(self, task_id: str, client: Client) -> None:
        """Cancel a task and wait until its slot is free, 5 s at most; an unknown task is ignored.

        Only an operator may cancel tasks of others; for anybody else these do not exist.
        """
        task = self._tasks.get(task_id)
        if task is None or not (client.operates or client.name == task.client.name):
            return
        task.cancel(RbeeError(ErrorCode.CANCELED, f"Task {task_id} was canceled."))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await task.ended.wait()

    def hive_lost(self, node: str, reason: str | None) -> None:
        """Note that the hive of *node* is lost, or with None is back, for the streams from there."""
        for task in self._tasks.values():
            task.hive_lost(node, reason)

    async def wait_until_empty(self) -> None:
        """Wait until no task is left."""
        await self._empty.wait()

    async def abort_all(self) -> None:
        """Cancel the tasks that still run, and wait for their end."""
        for task in list(self._tasks.values()):
            log.warning("task aborted", extra={"fields": {"task_id": task.id, "client": task.client.name}})
            task.cancel(RbeeError(ErrorCode.DRAINING, "The queen is stopping and could not wait longer for this task."))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self._empty.wait()

    def _check(self, client: Client, *, draining: bool) -> None:
        """Raise RbeeError if one more task of *client* is not admitted; where it helps, take a place from another."""
        held = self._places[client.name]
        if client.limited:
            now, used = self._services.now(), self._services.usage.tokens_today(client.name)
            limited = check_limits(client, tasks=held, tokens_today=used, now=now)
            if limited is not None:
                raise limited
        refused = check_capacity(
            QueueLoad(len(self._placed), held, draining),
            max_tasks=self._max_tasks,
            max_tasks_per_client=self._max_tasks_per_client,
        )
        if refused is not None and (draining or len(self._placed) < self._max_tasks or not self._displace(client)):
            raise refused

    def _displace(self, client: Client) -> bool:
        """End a task that still waits, of the client with the most, in favour of *client*; return whether there was."""
        other = client_to_displace(self._places, client.name)
        waiting = [task for task in self._placed.values() if task.client.name == other and task.waiting]
        if not waiting:
            return False
        # The least urgent, of these the latest.
        task = min(reversed(waiting), key=lambda one: one.priority)
        self._free_place(task)
        task.cancel(
            RbeeError(
                ErrorCode.QUEUE_FULL,
                f"The queen has {self._max_tasks} tasks, its limit, most of them of this client; this one, which was "
                "still waiting, has given its place to another client.",
                details={"max_tasks": self._max_tasks},
            )
        )
        return True

    def _free_place(self, task: Task) -> None:
        if self._placed.pop(task.id, None) is not None:
            name = task.client.name
            self._places[name] -= 1
            if not self._places[name]:
                del self._places[name]
