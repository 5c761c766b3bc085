"""What a chaos run measured, and the receipt of it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from statistics import median, quantiles

ORPHANS_GONE_S = 2.0
REGISTRY_RIGHT_S = 10.0


@dataclass
class Tally:
    """Counts and times of one run; times in seconds. Any thread may add to it."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    times: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, what: str, seconds: float) -> None:
        """Add a time."""
        with self._lock:
            self.times.setdefault(what, []).append(seconds)

    def ended(self, how: str) -> None:
        """Count the end of a stream."""
        with self._lock:
            self.streams[how] += 1

    def broken(self, promise: str) -> None:
        """Note a promise that was not kept."""
        with self._lock:
            self.violations.append(promise)

    def receipt(self, lasted_s: float) -> str:
        """Lay it out for a person."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        lines = [
            f"seed {self.seed}: {self.kills.total()} kills ({kinds}) in {lasted_s:.0f} s",
            "streams under load: " + (", ".join(f"{n} {how}" for how, n in sorted(self.streams.items())) or "none"),
            f"{'what':34} {'count':>6} {'median':>9} {'p99':>9} {'max':>9}",
        ]
        for what, taken in sorted(self.times.items()):
            figures = (median(taken), percentile_99(taken), max(taken))
            lines.append(f"{what:34} {len(taken):6} " + " ".join(f"{seconds * 1000:6.0f} ms" for seconds in figures))
        lines += [f"BROKEN: {violation}" for violation in self.violations] or ["every promise was kept"]
        return "\n".join(lines)


def percentile_99(taken: list[float]) -> float:
    """Give the time that one in a hundred takes longer than."""
    return max(taken) if len(taken) < 2 else min(quantiles(taken, n=100, method="inclusive")[98], max(taken))
