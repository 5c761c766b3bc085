"""Authenticate requests by bearer key or ticket."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
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

SessionLookup = Callable[[str, Mapping[bytes, bytes]], Caller | None]
KeyLookup = Callable[[str, str], Caller | None]

# Where clients of other services put their keys.
_OTHER_HEADERS: Final = ("api-key", "apikey", "x-goog-api-key", "x-auth-token", "x-access-token")
_PARAMETERS: Final = frozenset({b"key", b"api_key", b"api-key", b"apikey", b"token", b"access_token"})
_OTHER_SCHEMES: Final = frozenset({b"basic", b"digest", b"token", b"apikey", b"negotiate"})


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
        session_lookup: (method, headers) -> the client whose browser sends a request without a key, or None. It raises
            RbeeError FORBIDDEN for what the page of another site made it send.
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
        session_lookup: SessionLookup | None = None,
    ) -> None:
        self._daemon = daemon
        self._key = key.encode()
        self.open_paths = frozenset(open_paths)
        self._operator = operator
        self._client_key_lookup = client_key_lookup
        self._tickets = tickets
        self._session_lookup = session_lookup

    def check(self, path: str, headers: Mapping[bytes, bytes], query: bytes = b"", *, method: str = "GET") -> Caller:
        """Return the caller of a request with these headers, by their names in small letters.

        Raises RbeeError MISSING_API_KEY, INVALID_API_KEY, or FORBIDDEN as sessions do.
        """
        if path in self.open_paths:
            return ANONYMOUS
        # Before the key: a redirected client may send the queen's key along.
        if query and self._tickets is not None and self._tickets.redeem(path, query):
            return TICKET
        key = _key(headers)
        if not key and self._session_lookup is not None and b"cookie" in headers:
            caller = self._session_lookup(method, headers)
            if caller is not None:
                return caller
        if not key:
            message = (
                f"{self._daemon} requires an API key, as 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'; "
                f"the request {_found(headers, query)}."
            )
            raise RbeeError(ErrorCode.MISSING_API_KEY, message)
        if hmac.compare_digest(key, self._key):
            return self._operator
        caller = self._client_key_lookup(path, key.decode("latin-1")) if self._client_key_lookup is not None else None
        if caller is not None:
            return caller
        raise RbeeError(ErrorCode.INVALID_API_KEY, f"{self._daemon} does not accept this API key.")


def _key(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the bearer key; Anthropic's clients send it as X-Api-Key. It is empty where there is none."""
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"").strip()


def _found(headers: Mapping[bytes, bytes], query: bytes) -> str:
    """Return what a request has in place of a key, without repeating any of it: it may be the key."""
    scheme, _, rest = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" or b"x-api-key" in headers:
        return "has an empty one"
    if scheme.lower() in _OTHER_SCHEMES:
        return f"has 'Authorization: {scheme.decode('latin-1').capitalize()}', which is not taken"
    if scheme:
        return f"has 'Authorization' {'with another scheme' if rest else 'without a scheme'}, which is not taken"
    for name in _OTHER_HEADERS:
        if name.encode() in headers:
            return f"has one in the header '{name}', which is not taken"
    if any(part.partition(b"=")[0].lower() in _PARAMETERS for part in query.split(b"&")):
        return "has one in its address, which is not taken: addresses are logged"
    return "has neither"
