"""Decide whether one more task is admitted, and in which order the tasks that wait for a slot get one.

Pure: nothing here waits; an entry that becomes the first one calls `on_first`.

Invariant of the queue: of the entries that wait for the same kind of slot, the one with the highest priority is first;
of equal priorities, that of the client that got the fewest slots since it arrived; of these, the earliest.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The tasks that were admitted and have not ended, in all and of one client, and whether the queen is stopping."""

    tasks: int
    of_client: int
    draining: bool


def check_capacity(load: QueueLoad, *, max_tasks: int, max_tasks_per_client: int | None = None) -> RbeeError | None:
    """Return why one more task of this client is not admitted, or None where it is."""
    if load.draining:
        return RbeeError(ErrorCode.DRAINING, "The queen is stopping and accepts no new tasks.")
    if load.tasks >= max_tasks:
        return RbeeError(
            ErrorCode.QUEUE_FULL,
            f"The queen already has {load.tasks} tasks, which is its limit.",
            details={"tasks": load.tasks, "max_tasks": max_tasks},
        )
    if max_tasks_per_client is not None and load.of_client >= max_tasks_per_client:
        return RbeeError(
            ErrorCode.QUEUE_FULL,
            f"The queen already has {load.of_client} tasks of this client, which is the limit for each client.",
            details={"tasks": load.of_client, "max_tasks_per_client": max_tasks_per_client},
        )
    return None


def client_to_displace(places: Mapping[str, int], client: str) -> str | None:
    """Return whose place *client* gets where all are taken, None where nobody has too many.

    It is the client with the most, if it has more than *client* will have: so the places are shared evenly between
    those who want them, and no exchange is ever turned back.
    """
    most = max(places, key=lambda name: (places[name], name), default=None)
    return most if most is not None and places[most] > places.get(client, 0) + 1 else None


class SlotKind(NamedTuple):
    """What kind of slot a request waits for: one of a model, by its name, and where if that matters."""

    name: str
    node: str | None = None
    backend: Backend | None = None
    device: int | None = None


@dataclass(slots=True, eq=False)
class QueueEntry:
    """A request that waits for a kind of slot: its arrival number, client, priority and position.

    `tag` counts the client's requests on a clock that all clients share (see `FairQueue`). `position` is 1 for the
    first of `length` entries. `on_first` is called whenever the entry becomes the first one.
    """

    number: int
    client: str
    priority: int
    kind: SlotKind
    tag: int
    position: int = 0
    length: int = 0
    on_first: Callable[[], None] | None = None

    @property
    def rank(self) -> tuple[int, int, int]:
        """Return what orders the entries of one kind; the smallest is first."""
        return (-self.priority, self.tag, self.number)

    @property
    def is_first(self) -> bool:
        """Return whether nobody is ahead."""
        return self.position == 1

    def may_go(self, free_slots: int) -> bool:
        """Return whether a request may be sent: it is first, or there is a free slot for each one ahead of it too.

        A request that is being sent is still in the queue but its slot is counted already, so at most as many are sent
        as there are slots.
        """
        return self.is_first or self.position <= free_slots

    def move(self, position: int, length: int) -> None:
        """Set the position among *length* entries."""
        was_first = self.is_first
        self.position, self.length = position, length
        if self.is_first and not was_first and self.on_first is not None:
            self.on_first()


@dataclass(slots=True)
class FairQueue:
    """The entries of one kind: start-time fair queueing (Goyal, Vin and Cheng, 1996), all requests of one size.

    A client's requests get consecutive tags, and those of a new client begin at the clock, the tag of the entry that
    left the head last: so clients alternate, however many requests each has sent, and an absence earns no slots.
    `tags` is the last tag of each client.
    """

    waiting: dict[int, QueueEntry] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    clock: int = 0

    def add(self, number: int, client: str, priority: int, kind: SlotKind) -> QueueEntry:
        """Add an entry at the position that priority and fairness give."""
        tag = self.tags[client] = max(self.clock, self.tags.get(client, 0)) + 1
        entry = self.waiting[number] = QueueEntry(number, client, priority, kind, tag)
        return entry

    def remove(self, entry: QueueEntry) -> None:
        """Remove an entry, with a slot or without one."""
        if entry is min(self.waiting.values(), key=lambda waiting: waiting.rank):
            self.clock = max(self.clock, entry.tag)
        del self.waiting[entry.number]

    def order(self) -> list[QueueEntry]:
        """List the entries, the first one first."""
        return sorted(self.waiting.values(), key=lambda waiting: waiting.rank)


class AdmissionQueue:
    """All requests that wait for a slot, with a fair queue for each kind of slot."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._queues: defaultdict[SlotKind, FairQueue] = defaultdict(FairQueue)

    def __len__(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues.values())

    def wants(self, name: str) -> bool:
        """Return whether a request waits for a slot of the model *name*."""
        return any(kind.name == name for kind in self._queues)

    @contextmanager
    def waiting(self, kind: SlotKind, client: str, priority: int) -> Iterator[QueueEntry]:
        """Keep an entry in the queue for as long as the context lasts."""
        entry = self.join(kind, client, priority)
        try:
            yield entry
        finally:
            self.leave(entry)

    def join(self, kind: SlotKind, client: str, priority: int) -> QueueEntry:
        """Add an entry; end it with `leave`."""
        entry = self._queues[kind].add(next(self._numbers), client, priority, kind)
        self._renumber(kind)
        return entry

    def leave(self, entry: QueueEntry) -> None:
        """Remove an entry, with a slot or without one."""
        queue = self._queues[entry.kind]
        queue.remove(entry)
        if not queue.waiting:
            del self._queues[entry.kind]
        self._renumber(entry.kind)

    def order(self, kind: SlotKind) -> list[QueueEntry]:
        """List the entries that wait for the same kind of slot, the first one first."""
        queue = self._queues.get(kind)
        return [] if queue is None else queue.order()

    def _renumber(self, kind: SlotKind) -> None:
        order = self.order(kind)
        for position, entry in enumerate(order, 1):
            entry.move(position, len(order))
