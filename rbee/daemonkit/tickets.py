"""Signed tickets that admit one request to a daemon without its key.

The queen redirects clients, which must not have a worker's key, to the worker with a ticket. It is valid for one path,
once, for 30 s.
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
_PARTS_WITH_CLIENT: Final = 4


def issue(key: str, path: str, *, now: float, client: str = "") -> str:
    """Return a ticket for one request to *path* of the daemon with *key*.

    Args:
        now: seconds since the epoch.
        client: an id of letters and digits of whose request it is; the daemon reads it with `client`.
    """
    terms = f"{int(now) + LIFE_S}-{secrets.token_hex(12)}" + (f"-{client}" if client else "")
    return f"{terms}-{_signature(key, path, terms)}"


def client(query: bytes) -> str:
    """Return whose request it is, from the query of a ticket that was redeemed; empty without one."""
    given = parse_qs(query.decode("latin-1")).get(PARAMETER) if query else None
    parts = given[0].split("-") if given else []
    return parts[2] if len(parts) == _PARTS_WITH_CLIENT else ""


class Tickets:
    """The tickets that a daemon with *key* has redeemed. *now* returns seconds since the epoch."""

    def __init__(self, key: str, *, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now
        self._used: dict[str, int] = {}

    def redeem(self, path: str, query: bytes) -> bool:
        """Redeem the ticket in a query; return False if there is none.

        Raises RbeeError INVALID_API_KEY for a ticket that is forged, for another path, expired, or used.
        """
        given = parse_qs(query.decode("latin-1")).get(PARAMETER)
        if not given:
            return False
        terms, _, signature = given[0].rpartition("-")
        expires = terms.partition("-")[0]
        if not hmac.compare_digest(signature.encode(), _signature(self._key, path, terms).encode()):
            raise _invalid_ticket("is not valid for this request")
        now = self._now()
        # The signature is valid, so it is a number.
        if not now < int(expires) <= now + 2 * LIFE_S:
            raise _invalid_ticket(f"has expired, or the clocks of the two machines differ by more than {LIFE_S} s")
        self._used = {used: until for used, until in self._used.items() if until > now}
        if terms in self._used:
            raise _invalid_ticket("was used already")
        self._used[terms] = int(expires)
        return True


def _signature(key: str, path: str, terms: str) -> str:
    return hmac.digest(key.encode(), f"{path}\n{terms}".encode(), "sha256").hex()


def _invalid_ticket(why: str) -> RbeeError:
    return RbeeError(
        ErrorCode.INVALID_API_KEY,
        f"The ticket {why}.",
        hint="Send the request to the queen again; without X-Rbee-Direct it relays the response itself.",
    )
