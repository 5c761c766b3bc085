"""Signed tickets that admit requests to one path of a daemon without its key.

The queen redirects clients, which must not have a worker's key, to the worker with a ticket. It is valid once, for
30 s, and stands in the address. A hive that copies a model from another one gets a ticket for the files of that model:
it is valid for 15 min, as often as the copy is taken up again, and is shown in place of the key.
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
COPY_LIFE_S: Final = 900
PARAMETER: Final = "ticket"
_PARTS_WITH_CLIENT: Final = 4
_DIRECT_HINT: Final = "Send the request to the queen again; without X-Rbee-Direct it relays the response itself."
_COPY_HINT: Final = "Request the download from the queen again, which gives a fresh one; compare the machines' clocks."


def issue(key: str, path: str, *, now: float, client: str = "", life_s: int = LIFE_S) -> str:
    """Return a ticket for requests to *path* of the daemon with *key*.

    Args:
        now: seconds since the epoch.
        client: an id of letters and digits of whose request it is; the daemon reads it with `client`.
    """
    terms = f"{int(now) + life_s}-{secrets.token_hex(12)}" + (f"-{client}" if client else "")
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
        now = self._now()
        terms, expires = _verified(self._key, path, given[0], now=now, life_s=LIFE_S, hint=_DIRECT_HINT)
        self._used = {used: until for used, until in self._used.items() if until > now}
        if terms in self._used:
            raise _invalid_ticket("was used already", _DIRECT_HINT)
        self._used[terms] = expires
        return True


def check_copy(key: str, path: str, ticket: str, *, now: float) -> None:
    """Check a ticket for copying what lies at *path*; it may be shown again until it expires.

    Raises RbeeError INVALID_API_KEY for one that is forged, for another path, or expired.
    """
    _verified(key, path, ticket, now=now, life_s=COPY_LIFE_S, hint=_COPY_HINT)


def _verified(key: str, path: str, ticket: str, *, now: float, life_s: int, hint: str) -> tuple[str, int]:
    """Return the terms of a ticket, and when it expires. Raises RbeeError INVALID_API_KEY."""
    terms, _, signature = ticket.rpartition("-")
    if not hmac.compare_digest(signature.encode(), _signature(key, path, terms).encode()):
        raise _invalid_ticket("is not valid for this request", hint)
    # The signature is valid, so it is a number.
    expires = int(terms.partition("-")[0])
    if not now < expires <= now + 2 * life_s:
        why = f"has expired, or the clocks of the two machines differ by more than {life_s} s"
        raise _invalid_ticket(why, hint)
    return terms, expires


def _signature(key: str, path: str, terms: str) -> str:
    return hmac.digest(key.encode(), f"{path}\n{terms}".encode(), "sha256").hex()


def _invalid_ticket(why: str, hint: str) -> RbeeError:
    return RbeeError(ErrorCode.INVALID_API_KEY, f"The ticket {why}.", hint=hint)
