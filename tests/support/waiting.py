"""Wait for something to become true, with a deadline and a reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def slowness() -> float:
    """Give the factor by which deadlines grow on a slow machine (`RBEE_TEST_SLOWNESS`)."""
    return float(os.environ.get("RBEE_TEST_SLOWNESS", "1"))


def eventually(predicate: Callable[[], T], *, within: float, because: str) -> T:
    """Call *predicate* until it gives something true and return that.

    An AssertionError inside *predicate* counts as not yet. Fails after *within* seconds (times `slowness`) with
    *because* and the last value or error seen.
    """
    deadline = time.monotonic() + within * slowness()
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
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {because}; last seen: {last!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
