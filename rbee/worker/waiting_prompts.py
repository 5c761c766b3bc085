"""The generations of requests that have more of them than there are slots: which one is next, and when. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from rbee.worker.generation import Generation


class WaitingPrompts:
    """Generations that wait for a slot, in groups of one prompt; a group starts together.

    A request whose generations do not fit at once leaves a slot to others wherever it can, because it may take long.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._groups: deque[tuple[Sequence[Generation], int]] = deque()

    def __iter__(self) -> Iterator[Generation]:
        return (generation for group, _ in self._groups for generation in group)

    def add(self, groups: Sequence[Sequence[Generation]], *, of: int) -> None:
        """Let *groups* of a request with *of* generations wait behind those that do already."""
        self._groups.extend((group, int(of > self._slots > len(group))) for group in groups)

    def take(self, free: int) -> Sequence[Generation]:
        """Remove and return the next group if it may start with so many slots *free*, else nothing."""
        if not self._groups:
            return ()
        group, left_to_others = self._groups[0]
        if free - left_to_others < len(group):
            return ()
        self._groups.popleft()
        return group

    def remove(self, matches: Callable[[Generation], bool]) -> list[Generation]:
        """Remove the generations that match, and return them."""
        removed = [one for one in self if matches(one)]
        kept = ((tuple(one for one in group if not matches(one)), spare) for group, spare in self._groups)
        self._groups = deque((group, spare) for group, spare in kept if group)
        return removed
