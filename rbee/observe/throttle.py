"""Bound how often one kind of line is logged, where strangers can cause it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LINES: Final = 10
INTERVAL_S: Final = 10.0


class LogThrottle:
    """Admits so many lines in each interval, and counts the others."""

    def __init__(
        self, lines: int = LINES, interval_s: float = INTERVAL_S, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lines = lines
        self._interval_s = interval_s
        self._clock = clock
        self._ends = 0.0
        self._admitted = 0
        self._left_out = 0

    def admit(self) -> bool:
        """Return whether a line may be logged now; one that may not is counted."""
        now = self._clock()
        if now >= self._ends:
            self._ends, self._admitted = now + self._interval_s, 0
        if self._admitted < self._lines:
            self._admitted += 1
            return True
        self._left_out += 1
        return False

    def take_left_out(self) -> int:
        """Return how many lines were left out since the last call; 0 while the interval still runs."""
        if self._clock() < self._ends:
            return 0
        left_out, self._left_out = self._left_out, 0
        return left_out
