"""Watch the fleet for as long as somebody reads, and hand out what changes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from rbee.contracts.errors import ErrorCode
from rbee.contracts.events import LoadRow, TaskRow
from rbee.contracts.queen import NodeDownload, QueenStatus
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.events.change_log import ChangeLog, Key
from rbee.queen.events.rows import download_id, encode, fleet_rows, whole
from rbee.queen.fleet.state import FleetState
from rbee.queen.fleet.worker_start import WorkerStarter
from rbee.queen.serving.declarations import Declarations
from rbee.queen.serving.loop import ServingLoop
from rbee.queen.tasks.registry import TaskRegistry

TICK_S: Final = 0.25
TICKS_BETWEEN: Final = 3  # from one look at what tells of no change by itself to the next
LINGER_S: Final = 60.0  # for which a reader that was cut off can go on where it was
MAX_READERS: Final = 200
MAX_TASKS: Final = 500
_AT_ONCE: Final = 200  # rows that are encoded without letting others run

Rows = Mapping[Key, bytes | None]


class EventFeed:
    """The events of a queen.

    Args:
        status: returns how the queen is.
    """

    def __init__(
        self,
        fleet: FleetState,
        tasks: TaskRegistry,
        serving: ServingLoop,
        declarations: Declarations,
        starter: WorkerStarter,
        background: BackgroundTasks,
        *,
        status: Callable[[], QueenStatus],
    ) -> None:
        self._fleet = fleet
        self._tasks = tasks
        self._serving = serving
        self._declarations = declarations
        self._starter = starter
        self._background = background
        self._status = status
        self._readers = 0
        self._watching: asyncio.Task[None] | None = None
        self._log = ChangeLog("")
        self._changed = asyncio.Event()
        self._complete = asyncio.Event()
        self._told: dict[str, tuple[object, ...]] = {}

    async def read(self, after: str) -> AsyncGenerator[bytes, None]:
        """Yield all rows, or what followed the event with the id *after*, and then every change, without end.

        A reader that is slower than the changes are kept is told so and gets no more.

        Raises RbeeError TOO_MANY_REQUESTS.
        """
        with self._reading():
            await self._complete.wait()
            log = self._log
            number = log.position(after)
            if number is None:
                number, parts = log.number, log.snapshot()
                for part in parts:
                    yield _event("snapshot", part)
                yield _event("complete", b"{}", log.id(number))
            while True:
                changed = self._changed
                batches = log.since(number)
                if batches is None:
                    yield _event("dropped", b'{"reason": "the reader was too slow for the changes; begin anew"}')
                    return
                for batch in batches:
                    number = batch.number
                    yield _event("changes", batch.body, log.id(number))
                if not batches:
                    await changed.wait()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        if self._readers >= MAX_READERS:
            raise RbeeError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"{MAX_READERS} readers follow the events of this queen, which is its limit.",
                retry_after_s=10,
            )
        self._readers += 1
        if self._watching is None:
            self._log = ChangeLog(secrets.token_hex(4))
            self._complete.clear()
            self._told.clear()
            self._watching = self._background.start(self._watch(), name="events")
        try:
            yield
        finally:
            self._readers -= 1

    async def _watch(self) -> None:
        """Keep the log as the fleet is, until nobody has read it for a while."""
        unread = 0.0
        with self._fleet.collecting() as names:
            registry = self._fleet.registry
            everything = [hive.node for hive in registry.hives()]
            everything += [worker.worker_id for worker in registry.workers()]
            await self._encode(everything)
            self._look()
            self._complete.set()
            ticks = 0
            while self._readers or unread < LINGER_S:  # one may have come while rows were encoded
                await asyncio.sleep(TICK_S)
                unread = 0.0 if self._readers else unread + TICK_S
                changed, ticks = list(names), ticks + 1
                names.clear()
                await self._encode(changed)
                if ticks % TICKS_BETWEEN == 0 or changed:
                    self._look()
                else:
                    self._publish(self._task_rows(all_of_them=False))
        self._watching = None

    async def _encode(self, names: list[str]) -> None:
        """Take over the rows of nodes and workers, some at a time."""
        for first in range(0, len(names), _AT_ONCE):
            self._publish(fleet_rows(self._fleet.registry, self._log, names[first : first + _AT_ONCE]))
            await asyncio.sleep(0)

    def _look(self) -> None:
        """Take over what tells of no change by itself."""
        served = {each.model.name: self._serving.info(each) for each in self._declarations.all()}
        downloads = {download_id(each): each for each in self._downloads()}
        rows: dict[Key, bytes | None] = {Key("queen", "queen"): encode(self._status())}
        loads = {id_: LoadRow(worker_id=id_, **each.model_dump()) for id_, each in self._starter.loads.items()}
        for kind, found in (("served", served), ("download", downloads), ("load", loads)):
            rows |= whole(self._log, kind, found)
        self._publish(rows | self._task_rows(all_of_them=True))

    def _downloads(self) -> Iterator[NodeDownload]:
        for node, reference, progress in self._starter.downloads():
            fields = {} if progress is None else progress.model_dump(include=set(NodeDownload.model_fields))
            yield NodeDownload.model_validate({"stage": "queued", **fields, "node": node, "reference": reference})

    def _task_rows(self, *, all_of_them: bool) -> dict[Key, bytes | None]:
        """Return the rows of tasks: in between only of those that have come, gone on or ended."""
        tasks = {task.id: task for task in self._tasks.activity(MAX_TASKS)}
        told = {id_: _step(task) for id_, task in tasks.items()}
        some = {id_: task for id_, task in tasks.items() if all_of_them or self._told.get(id_) != told[id_]}
        gone: dict[Key, bytes | None] = {Key("task", id_): None for id_ in self._told.keys() - tasks.keys()}
        self._told = told
        shown: Mapping[str, BaseModel] = some
        return gone | {Key("task", id_): encode(task) for id_, task in shown.items()}

    def _publish(self, rows: Rows) -> None:
        if self._log.update(rows):
            # They hold the old event, whoever waits next gets a new one.
            self._changed.set()
            self._changed = asyncio.Event()


def _step(task: TaskRow) -> tuple[object, ...]:
    return (task.state, task.position, task.model)


def _event(name: str, body: bytes, id_: str | None = None) -> bytes:
    head = b"" if id_ is None else f"id: {id_}\n".encode()
    return head + f"event: {name}\ndata: ".encode() + body + b"\n\n"
