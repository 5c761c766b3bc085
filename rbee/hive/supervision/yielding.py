"""Decide which devices are yielded to other programs, and for how long.

Pure: time comes in as `Moment`, of the machine's clock and of a steady one.
A yield ends at a time of the machine's clock, which goes on while the machine sleeps or the hive is down. Whoever
asked for two hours gets no more than two hours of the steady clock, though: a clock that is set back moves the end
with it. One that is set forward to after the end ends it.

Invariant: after `at`, what is left by either clock is more than nothing and at most what was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from rbee.contracts.devices import YieldedDevice
from rbee.hive.supervision.quarantine import Place

# Clocks are read one after the other, and set right by some milliseconds all the time.
_SLACK_S: Final = 1.0


class Moment(NamedTuple):
    """One moment: seconds since the epoch by the machine's clock, and seconds of a steady clock."""

    wall: float
    steady: float


@dataclass(frozen=True, slots=True)
class Yield:
    """A device that is yielded: since when, until when, and the end by the steady clock; None means no end."""

    since: float
    until: float | None = None
    until_steady: float | None = None

    def is_over(self, now: Moment) -> bool:
        """Return whether its end has come, by either clock."""
        if self.until is None or self.until_steady is None:
            return False
        return now.wall >= self.until or now.steady >= self.until_steady

    def at(self, now: Moment) -> Yield:
        """Return it with its end moved where the machine's clock was set back."""
        if self.until is None or self.until_steady is None:
            return self
        left = self.until_steady - now.steady
        return self if self.until - now.wall <= left + _SLACK_S else replace(self, until=now.wall + left)


@dataclass(frozen=True, slots=True)
class YieldLedger:
    """The yielded devices of one hive; every change is a new ledger."""

    yields: Mapping[Place, Yield] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def restore(cls, listed: Iterable[YieldedDevice], now: Moment) -> YieldLedger:
        """Return the ledger that an earlier life of the hive had stored; none lasts longer than it was asked for."""
        yields: dict[Place, Yield] = {}
        for each in listed:
            place, until = (each.backend, each.device), each.until_unix
            if until is None:
                yields[place] = Yield(each.since_unix)
            else:
                left = min(until - now.wall, until - each.since_unix)
                yields[place] = Yield(each.since_unix, until, now.steady + left)
        return cls(yields).at(now)

    def at(self, now: Moment) -> YieldLedger:
        """Return the ledger without what has ended; the same one where nothing has changed."""
        current = {place: one.at(now) for place, one in self.yields.items() if not one.is_over(now)}
        return self if current == self.yields else YieldLedger(current)

    def with_yielded(self, places: Collection[Place], now: Moment, for_s: float | None) -> YieldLedger:
        """Return the ledger with *places* yielded from now on; the latest command decides until when."""
        until = (None, None) if for_s is None else (now.wall + for_s, now.steady + for_s)
        return YieldLedger({**self.yields, **dict.fromkeys(places, Yield(now.wall, *until))})

    def without(self, places: Collection[Place]) -> YieldLedger:
        """Return the ledger with *places* in use again."""
        return YieldLedger({place: one for place, one in self.yields.items() if place not in places})

    def listed(self) -> list[YieldedDevice]:
        """List the yielded devices as they are stored and sent."""
        return [
            YieldedDevice(backend=backend, device=index, since_unix=one.since, until_unix=one.until)
            for (backend, index), one in sorted(self.yields.items())
        ]

    def check_invariants(self, now: Moment) -> None:
        """Raise AssertionError if the ledger, as it is *at* now, contradicts itself."""
        for place, one in self.yields.items():
            assert (one.until is None) == (one.until_steady is None), place
            if one.until is not None and one.until_steady is not None:
                assert 0 < one.until - now.wall <= one.until_steady - now.steady + _SLACK_S, place
