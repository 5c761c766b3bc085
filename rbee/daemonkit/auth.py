"""Authenticate requests by bearer key or ticket."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.tickets import Tickets
from rbee.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, by the name of the key."""

    name: str


OPERATOR: Final = Caller("operator")
"""The caller with the daemon's own key."""

TICKET: Final = Caller("ticket")
"""The caller with a ticket."""

ANONYMOUS: Final = Caller("")
"""Anybody, on an open path."""

KeyLookup = Callable[[str, str], Caller | None]


class Authenticator:
    """The check of a request's path and bearer key.

    Args:
        daemon: its name and address, for messages.
        key: the key that opens every route.
        open_paths: paths that need no key (health).
        operator: the caller that has *key*.
        client_key_lookup: (path, key) -> the client that may call the path with this key, or None. It raises RbeeError
            for a key that is known and not valid any more.
        tickets: accepts single requests without a key.
    """

    def __init__(
        self,
        daemon: str,
        key: str,
        *,
        open_paths: Collection[str],
        operator: Caller = OPERATOR,
        client_key_lookup: KeyLookup | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        self._daemon = daemon
        self._key = key.encode()
        self.open_paths = frozenset(open_paths)
        self._operator = operator
        self._client_key_lookup = client_key_lookup
        self._tickets = tickets

    def check(self, path: str, authorization: bytes | None, query: bytes = b"") -> Caller:
        """Return the caller.

        Raises RbeeError MISSING_API_KEY or INVALID_API_KEY.
        """
        if path in self.open_paths:
            return ANONYMOUS
        # Before the key: a redirected client may send the queen's key along.
        if query and self._tickets is not None and self._tickets.redeem(path, query):
            return TICKET
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            message = (
                f"{self._daemon} requires an API key, as 'Authorization: Bearer <key>' or 'X-Api-Key: <key>', and the "
                "request has neither."
            )
            raise RbeeError(ErrorCode.MISSING_API_KEY, message)
        key = key.strip()
        if hmac.compare_digest(key, self._key):
            return self._operator
        caller = self._client_key_lookup(path, key.decode("latin-1")) if self._client_key_lookup is not None else None
        if caller is not None:
            return caller
        raise RbeeError(ErrorCode.INVALID_API_KEY, f"{self._daemon} does not accept this API key.")
