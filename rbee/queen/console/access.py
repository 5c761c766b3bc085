"""Who a browser acts for: sessions, their cookies, and the keys behind them."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from rbee.errors import RbeeError
from rbee.queen.console.cookies import SessionCookies
from rbee.queen.console.sessions import Session, Sessions
from rbee.queen.keys.access import ADMIN, Client
from rbee.queen.keys.store import ClientKeys


class ConsoleAccess:
    """The sessions of one queen. *key* is its own; *now* returns seconds since the epoch."""

    def __init__(self, client_keys: ClientKeys, key: str, now: Callable[[], float]) -> None:
        self._client_keys = client_keys
        self._key = key.encode()
        self.sessions = Sessions(now)
        self.cookies = SessionCookies(self.sessions, self.client_named, queen=_mark(self._key))

    def client_named(self, name: str) -> Client | None:
        """Return the client of that name as its key allows it now; None where the key is gone or has expired."""
        if name == ADMIN.name:
            return ADMIN
        try:
            return self._client_keys.named(name)
        except RbeeError:
            return None

    def sign_in(self, *, ticket: str | None, key: str | None) -> tuple[str, Session] | None:
        """Return a new session with its token, for a ticket or a key; None where that is not good."""
        if ticket is not None:
            return self.sessions.redeem(ticket)
        client = self._client_of(key or "")
        return None if client is None else self.sessions.begin(client.name)

    def _client_of(self, key: str) -> Client | None:
        if hmac.compare_digest(key.encode(), self._key):
            return ADMIN
        try:
            return self._client_keys.find("", key)
        except RbeeError:
            return None


def _mark(key: bytes) -> str:
    """Return what names a queen with that key: the same after a restart, and of no use to find the key by."""
    return hmac.digest(key, b"console", "sha256").hex()[:8]
