"""Let requests wait for a slot in the order that `admission` gives, each woken only when it is its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from rbee.queen.admission import Line, Ticket


class Turn:
    """One request's place in the line."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.place = 0
        self.of = 0
        self._first = asyncio.Event()

    @property
    def is_first(self) -> bool:
        """Tell whether nobody is ahead."""
        return self._first.is_set()

    async def wait(self) -> None:
        """Wait until nobody is ahead; somebody more urgent may come between even then."""
        await self._first.wait()

    def moved(self, place: int, of: int) -> None:
        """Take note of the place, 1 for the first, among *of* who wait for the same thing."""
        self.place, self.of = place, of
        if place == 1:
            self._first.set()
        else:
            self._first.clear()


class Turns:
    """The line of those who wait, and the wake-ups that follow from every change of it."""

    def __init__(self) -> None:
        self._line = Line()
        self._turns: dict[int, Turn] = {}

    def __len__(self) -> int:
        return len(self._line)

    @contextmanager
    def waiting(self, kind: Hashable, client: str, priority: int) -> Iterator[Turn]:
        """Stand in line for as long as the context lasts."""
        turn = Turn(self._line.join(kind, client, priority))
        self._turns[turn.ticket.number] = turn
        self._move(kind)
        try:
            yield turn
        finally:
            del self._turns[turn.ticket.number]
            self._line.leave(turn.ticket)
            self._move(kind)

    def _move(self, kind: Hashable) -> None:
        order = self._line.order(kind)
        for place, ticket in enumerate(order, 1):
            self._turns[ticket.number].moved(place, len(order))
