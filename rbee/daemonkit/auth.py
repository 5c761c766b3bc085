"""Bearer keys: who may call which route."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection

from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.tickets import Tickets
from rbee.errors import RbeeError

OPERATOR = "operator"
"""Who shows the daemon's own key."""

TICKET = "ticket"
"""Who shows a ticket instead."""

KeyCheck = Callable[[str, str], str | None]


class Authenticator:
    """Let a request through by its path and bearer key.

    Args:
        daemon: its name and address, for messages.
        key: the key that opens every route.
        open_paths: paths that need no key (health).
        client_key_lookup: opens single routes with other keys: (path, key) -> whose it is, None for nobody's.
        tickets: lets single requests in without a key.
    """

    def __init__(
        self,
        daemon: str,
        key: str,
        *,
        open_paths: Collection[str],
        client_key_lookup: KeyCheck | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        self._daemon = daemon
        self._key = key.encode()
        self.open_paths = frozenset(open_paths)
        self._client_key_lookup = client_key_lookup
        self._tickets = tickets

    def check(self, path: str, authorization: bytes | None, query: bytes = b"") -> str | None:
        """Tell whose request it is, None for one that needs no key.

        Raises RbeeError MISSING_API_KEY or INVALID_API_KEY for one that may not pass.
        """
        if path in self.open_paths:
            return None
        # Before the key: a client that was sent here may show the key of who sent it.
        if query and self._tickets is not None and self._tickets.redeem(path, query):
            return TICKET
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise RbeeError(ErrorCode.MISSING_API_KEY, f"{self._daemon} wants an API key and got none.")
        key = key.strip()
        if hmac.compare_digest(key, self._key):
            return OPERATOR
        owner = self._client_key_lookup(path, key.decode("latin-1")) if self._client_key_lookup is not None else None
        if owner is not None:
            return owner
        raise RbeeError(ErrorCode.INVALID_API_KEY, f"{self._daemon} does not accept this API key.")
