"""Decide whether one more task may come in, and in which order those that wait for a slot get one.

Pure: the load and the limits go in, a refusal or nothing comes out; tickets go in, the one whose turn it is comes out.

Invariant of the line: of the tickets that wait for the same thing, the one with the highest priority is first; of equal
ones, that of the client who has had the fewest turns since it came; of equal ones, the earliest.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Load:
    """What the queen is doing: tasks accepted and not yet ended, in all and of one client; and whether she ends."""

    tasks: int
    of_client: int
    draining: bool


def refusal(load: Load, *, max_tasks: int, max_tasks_per_client: int | None = None) -> RbeeError | None:
    """Give the reason why one more task of this client is not accepted, or None where it is."""
    if load.draining:
        return RbeeError(ErrorCode.DRAINING, "The queen is stopping and takes no new task.")
    if load.tasks >= max_tasks:
        return RbeeError(
            ErrorCode.QUEUE_FULL,
            f"The queen already has {load.tasks} tasks, which is its limit.",
            details={"tasks": load.tasks, "max_tasks": max_tasks},
        )
    if max_tasks_per_client is not None and load.of_client >= max_tasks_per_client:
        return RbeeError(
            ErrorCode.QUEUE_FULL,
            f"The queen already has {load.of_client} tasks of this client, which is the limit for each.",
            details={"tasks": load.of_client, "max_tasks_per_client": max_tasks_per_client},
        )
    return None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that waits: its place of arrival, whose it is, how urgent, and for what kind of slot.

    `tag` counts the client's requests on a clock that all clients share; see `Line`.
    """

    number: int
    client: str
    priority: int
    kind: Hashable
    tag: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """Give what decides between two that wait for the same thing; the smaller one comes first."""
        return (-self.priority, self.tag, self.number)


@dataclass(slots=True)
class _Queue:
    """Who waits for one kind of slot. `clock` is the tag of who went last, `tags` the last tag of each client."""

    waiting: dict[int, Ticket] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    clock: int = 0


class Line:
    """Everybody who waits for a slot: start-time fair queueing (Goyal, Vin and Cheng, 1996), all requests of one size.

    A client's requests get tags one after the other, a newcomer's begin where the others are: so clients take turns,
    however many requests each has brought, and nobody is owed turns for having been away.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._queues: defaultdict[Hashable, _Queue] = defaultdict(_Queue)

    def join(self, kind: Hashable, client: str, priority: int) -> Ticket:
        """Come in at the place that priority and fairness give."""
        queue = self._queues[kind]
        queue.tags[client] = max(queue.clock, queue.tags.get(client, 0)) + 1
        ticket = Ticket(next(self._numbers), client, priority, kind, queue.tags[client])
        queue.waiting[ticket.number] = ticket
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Go, with a slot or without one."""
        queue = self._queues[ticket.kind]
        if ticket is min(queue.waiting.values(), key=lambda waits: waits.rank):
            queue.clock = max(queue.clock, ticket.tag)
        del queue.waiting[ticket.number]
        if not queue.waiting:
            del self._queues[ticket.kind]

    def order(self, kind: Hashable) -> list[Ticket]:
        """Give those who wait for the same thing, the next one first."""
        queue = self._queues.get(kind)
        return [] if queue is None else sorted(queue.waiting.values(), key=lambda waits: waits.rank)

    def __len__(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues.values())
