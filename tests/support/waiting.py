"""Wait for something to become true, with a deadline and a reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


MOST_PATIENT = 5.0


def slowness() -> float:
    """Give the factor by which deadlines grow: `RBEE_TEST_SLOWNESS`, or what the load of the machine asks for."""
    asked = float(os.environ.get("RBEE_TEST_SLOWNESS", "1"))
    return max(asked, load_factor(os.getloadavg()[0], os.cpu_count() or 1))


def load_factor(wanting: float, processors: int) -> float:
    """Give how much longer work takes where so many processes want to run, from 1 to `MOST_PATIENT`."""
    return min(max(wanting / processors, 1.0), MOST_PATIENT)


def eventually(predicate: Callable[[], T], *, within: float, because: str) -> T:
    """Call *predicate* until it gives something true and return that.

    An AssertionError inside *predicate* counts as not yet. Fails after *within* seconds (times `slowness`) with
    *because* and the last value or error seen.
    """
    began = time.monotonic()
    pause = 0.01
    while True:
        last: object
        try:
            value = predicate()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        # Asked anew each time: load that comes while this waits counts too.
        if time.monotonic() - began > within * slowness():
            raise AssertionError(f"not within {within} s: {because}; last seen: {last!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
