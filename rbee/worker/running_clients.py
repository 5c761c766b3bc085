"""Tell the hive whose requests run, so that it knows after a crash which clients may have caused it.

A request counts from before its body is read until its generation has ended: parsing may end a worker too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from rbee.contracts.ids import CLIENT_HEADER, MAX_CLIENT_CHARS
from rbee.daemonkit import tickets
from rbee.daemonkit.auth import TICKET
from rbee.daemonkit.dialects import COMPAT_ROUTES

_HEADER: Final = CLIENT_HEADER.lower().encode()
_PATHS: Final = frozenset({"/v1/inference", *(route.path for route in COMPAT_ROUTES)})


class RunningClients:
    """The application *app* for authenticated requests, with the clients of those that run reported to *tell*.

    A set of clients is told once, and the empty one never: after a crash without a request, those that had run last
    are the ones to know. So a client that sends one request after the other is told once.
    """

    def __init__(self, app: ASGIApp, tell: Callable[[dict[str, Any]], None]) -> None:
        self._app = app
        self._tell = tell
        self._running: Counter[str] = Counter()
        self._told: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _PATHS:
            await self._app(scope, receive, send)
            return
        client = _client(scope)
        self._running[client] += 1
        self._report()
        try:
            await self._app(scope, receive, send)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
            self._report()

    def _report(self) -> None:
        if self._running and self._running.keys() != self._told:
            self._told = set(self._running)
            self._tell({"clients": sorted(self._told)})


def _client(scope: Scope) -> str:
    """Return the id that the queen gave the request's client, in a header or in its ticket; empty if it gave none."""
    if scope["state"]["caller"] is TICKET:  # the headers are the client's own, which could name another one
        return tickets.client(scope["query_string"])
    for name, value in scope["headers"]:
        if name == _HEADER:
            return str(value.decode("latin-1"))[:MAX_CLIENT_CHARS]
    return ""
