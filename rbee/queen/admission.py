"""Decide whether one more task may come in, and in which order those that wait for a slot get one.

Pure: the load and the limits go in, a refusal or nothing comes out; tickets go in, the one whose turn it is comes out.

Invariant of the line: of the tickets that wait for the same thing, the one with the highest priority is first; of equal
ones, that of the client who would have the fewest requests running and ahead; of equal ones, the earliest.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

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
    """A request that waits: its place of arrival, whose it is, how urgent, and for what kind of slot."""

    number: int
    client: str
    priority: int
    kind: Hashable


class Line:
    """Everybody who waits for a slot, and how many requests of each client run."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: defaultdict[Hashable, dict[int, Ticket]] = defaultdict(dict)
        self._running: Counter[str] = Counter()

    def join(self, kind: Hashable, client: str, priority: int) -> Ticket:
        """Come in at the place that priority and fairness give."""
        ticket = Ticket(next(self._numbers), client, priority, kind)
        self._waiting[kind][ticket.number] = ticket
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Go, with a slot or without one."""
        waiting = self._waiting[ticket.kind]
        waiting.pop(ticket.number, None)
        if not waiting:
            del self._waiting[ticket.kind]

    def began(self, client: str) -> None:
        """Note that a request of *client* runs."""
        self._running[client] += 1

    def ended(self, client: str) -> None:
        """Note that one has ended."""
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]

    def order(self, kind: Hashable) -> list[Ticket]:
        """Give those who wait for the same thing, the next one first."""
        ahead: Counter[tuple[str, int]] = Counter()
        ranked = []
        for ticket in self._waiting.get(kind, {}).values():
            rank = self._running[ticket.client] + ahead[ticket.client, ticket.priority]
            ahead[ticket.client, ticket.priority] += 1
            ranked.append(((-ticket.priority, rank, ticket.number), ticket))
        return [ticket for _, ticket in sorted(ranked)]

    def kinds(self) -> list[Hashable]:
        """List what is waited for."""
        return list(self._waiting)

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())
