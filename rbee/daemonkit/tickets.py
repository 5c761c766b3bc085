"""Tickets: the signed word of somebody who knows a daemon's key, which lets one request in that does not know it.

A client that may not have a worker's key is sent to the worker with one. It is good for one path, once, for a moment.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

LIFE_S: Final = 30
PARAMETER: Final = "ticket"


def issue(key: str, path: str, *, now: float) -> str:
    """Write a ticket for one request to *path* of the daemon with *key*. *now* in seconds since the epoch."""
    terms = f"{int(now) + LIFE_S}-{secrets.token_hex(12)}"
    return f"{terms}-{_signature(key, path, terms)}"


class Tickets:
    """The tickets that a daemon with *key* has taken. *now* gives seconds since the epoch."""

    def __init__(self, key: str, *, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now
        self._used: dict[str, int] = {}

    def redeem(self, path: str, query: bytes) -> bool:
        """Take the ticket in a query; False if there is none.

        Raises RbeeError INVALID_API_KEY for a ticket that is not ours, for another path, out of date, or used.
        """
        given = parse_qs(query.decode("latin-1")).get(PARAMETER)
        if not given:
            return False
        terms, _, signature = given[0].rpartition("-")
        expires = terms.partition("-")[0]
        if not hmac.compare_digest(signature.encode(), _signature(self._key, path, terms).encode()):
            raise _invalid_ticket("is not one for this request")
        now = self._now()
        # Its signature says that we wrote it, so it is a number.
        if not now < int(expires) <= now + 2 * LIFE_S:
            raise _invalid_ticket(f"is out of date, or the clocks of the two machines differ by more than {LIFE_S} s")
        self._used = {used: until for used, until in self._used.items() if until > now}
        if terms in self._used:
            raise _invalid_ticket("was used before")
        self._used[terms] = int(expires)
        return True


def _signature(key: str, path: str, terms: str) -> str:
    return hmac.digest(key.encode(), f"{path}\n{terms}".encode(), "sha256").hex()


def _invalid_ticket(why: str) -> RbeeError:
    return RbeeError(
        ErrorCode.INVALID_API_KEY,
        f"The ticket {why}.",
        hint="Send the request to the queen again; without X-Rbee-Direct she passes the answer on herself.",
    )
