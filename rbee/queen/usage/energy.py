"""Share the energy of devices among the requests that ran on them. Pure: time is an argument.

A device that tells has a counter of what it has taken since its driver was loaded. What that grew by between two
readings is shared by the requests that ran there meanwhile, in proportion to the time for which each ran. So the shares
of all add up to what the device took while anybody used it, with its power at rest in between; what it took while
nobody did belongs to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rbee.queen.hive import Place


class Payer(NamedTuple):
    """Whose request ran, and with which model."""

    client: str
    model: str


@dataclass(slots=True)
class Run:
    """A request while it runs on a device; its time before `since` is shared out already. Seconds of a steady clock."""

    place: Place
    payer: Payer
    since: float


@dataclass(slots=True)
class _Interval:
    """What ran on a device since its last reading: `seconds` are those of requests that have ended."""

    joules: float
    seconds: dict[Payer, float] = field(default_factory=dict)


class EnergyMeter:
    """The devices that tell, and what runs on each device now."""

    def __init__(self) -> None:
        self._running: dict[Place, list[Run]] = {}
        self._intervals: dict[Place, _Interval] = {}

    def begin(self, place: Place, payer: Payer, now: float) -> Run:
        """Note that a request begins to run on a device."""
        run = Run(place, payer, now)
        self._running.setdefault(place, []).append(run)
        return run

    def end(self, run: Run, now: float) -> None:
        """Note that a request has ended."""
        running = self._running[run.place]
        running.remove(run)
        if not running:
            del self._running[run.place]
        interval = self._intervals.get(run.place)
        if interval is not None:
            interval.seconds[run.payer] = interval.seconds.get(run.payer, 0.0) + now - run.since

    def read(self, place: Place, joules: float, now: float) -> dict[Payer, float]:
        """Take a reading of a device's counter; return the joules of each for whom it worked since the last one.

        The first reading, and one below the last (the driver was loaded anew), only begin an interval. One that is
        equal to the last is the same reading, told again.
        """
        before = self._intervals.get(place)
        if before is not None and joules == before.joules:
            return {}
        self._intervals[place] = _Interval(joules)
        seconds = {} if before is None else before.seconds
        for run in self._running.get(place, ()):
            seconds[run.payer] = seconds.get(run.payer, 0.0) + now - run.since
            run.since = now
        total = sum(seconds.values())
        if before is None or joules < before.joules or not total:
            return {}
        return {payer: (joules - before.joules) * own / total for payer, own in seconds.items()}

    def forget(self, node: str) -> None:
        """Forget the readings of a node that was lost: what its devices take until it is back is nobody's."""
        for place in [place for place in self._intervals if place[0] == node]:
            del self._intervals[place]
