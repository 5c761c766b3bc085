"""Sessions of the console's page: a ticket that is good once becomes a cookie with the rights of a key. Pure.

Tickets and tokens have 256 random bits, and only their hashes are kept, in memory: with the queen all sessions end.
A session has at every request the rights that its key has then; where that is revoked or has expired, it is over.

Invariants: a ticket becomes a session once at most; there are never more tickets and sessions than their limits.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TICKET_S: Final = 60.0
SESSION_S: Final = 12 * 3600.0
MAX_TICKETS: Final = 100
MAX_SESSIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """Whose session it is, by the name of the key, what its page sends with whatever it changes, and until when it is.

    `id` names it for people; it opens nothing.
    """

    id: str
    client: str
    csrf: str
    began_unix: float
    until_unix: float


class Sessions:
    """All tickets and sessions of one queen. *now* returns seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tickets: dict[str, tuple[str, float]] = {}
        self._sessions: dict[str, Session] = {}

    def ticket(self, client: str) -> str:
        """Return a ticket for a session of *client*, good once within a minute."""
        ticket = secrets.token_urlsafe(32)
        self._sweep()
        self._tickets[_hashed(ticket)] = (client, self._now() + TICKET_S)
        while len(self._tickets) > MAX_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        return ticket

    def redeem(self, ticket: str) -> tuple[str, Session] | None:
        """Return a new session for a ticket, with its token; None for a ticket that is not, or no longer, good."""
        client, until = self._tickets.pop(_hashed(ticket), ("", 0.0))
        return self.begin(client) if self._now() < until else None

    def begin(self, client: str) -> tuple[str, Session]:
        """Return a new session of *client*, with its token."""
        token, now = secrets.token_urlsafe(32), self._now()
        session = Session(secrets.token_hex(4), client, secrets.token_urlsafe(32), now, now + SESSION_S)
        self._sweep()
        self._sessions[_hashed(token)] = session
        while len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return token, session

    def find(self, token: str) -> Session | None:
        """Return the session of a token, None where it is over."""
        session = self._sessions.get(_hashed(token))
        return session if session is not None and self._now() < session.until_unix else None

    def list(self) -> list[Session]:
        """List the sessions, the oldest first."""
        self._sweep()
        return list(self._sessions.values())

    def end(self, id_: str) -> bool:
        """End the session of that id; return whether there was one."""
        found = [hashed for hashed, session in self._sessions.items() if session.id == id_]
        for hashed in found:
            del self._sessions[hashed]
        return bool(found)

    def end_of(self, client: str) -> None:
        """End all sessions and tickets of a client, whose key was revoked."""
        self._sessions = {hashed: each for hashed, each in self._sessions.items() if each.client != client}
        self._tickets = {hashed: each for hashed, each in self._tickets.items() if each[0] != client}

    def _sweep(self) -> None:
        now = self._now()
        self._tickets = {hashed: each for hashed, each in self._tickets.items() if now < each[1]}
        self._sessions = {hashed: each for hashed, each in self._sessions.items() if now < each.until_unix}


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
