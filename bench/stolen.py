"""Notice when a machine's own host withholds its processors (steal time), which no software can help."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil

_EVERY_S = 0.02
_LEAST_S = 0.02


class Stolen:
    """While this context lasts, note each moment at which a processor was away for 20 ms or more."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float, float]] = []
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch)

    def __enter__(self) -> Stolen:
        self._watching.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watching.join()

    def seconds(self, begin: float, end: float) -> float:
        """Sum up what was taken between two times of the monotonic clock, at most."""
        return sum(max(0.0, min(taken, min(end, last) - max(begin, first))) for first, last, taken in self._spans)

    def _watch(self) -> None:
        looked, before = time.monotonic(), _stolen_s()
        while not self._over.wait(_EVERY_S):
            now, after = time.monotonic(), _stolen_s()
            taken = max(new - old for new, old in zip(after, before, strict=True))
            if taken >= _LEAST_S:  # it is booked when the processor is back
                self._spans.append((looked - taken, now, taken))
            looked, before = now, after


def _stolen_s() -> list[float]:
    """Return it for each processor since the boot; only Linux reports it."""
    return [getattr(processor, "steal", 0.0) for processor in psutil.cpu_times(percpu=True)]
