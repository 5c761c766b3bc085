"""Find whose session a browser's request is, and refuse what another page makes it send. Pure but for the sessions."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import cookie_parser

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.console.sessions import Session, Sessions
from rbee.queen.keys.access import Client

_COOKIE: Final = "rbee_session_"
CSRF_HEADER: Final = b"x-rbee-csrf"
_SAFE: Final = ("GET", "HEAD")
_OWN_SITES: Final = (b"same-origin", b"none")
_PROXY: Final = "If that was the console behind a proxy, let the proxy send X-Forwarded-Host: see inventory/README.md"

Headers = Mapping[bytes, bytes]


class SessionCookies:
    """The sessions of browsers.

    Args:
        client: returns the client of a name as its key is now, None where that is gone.
        queen: tells the cookie, called `name`, from those of other queens: a browser has one jar for all ports of a
            host, and for all prefixes of a proxy.
    """

    def __init__(self, sessions: Sessions, client: Callable[[str], Client | None], queen: str) -> None:
        self._sessions = sessions
        self._client = client
        self.name = _COOKIE + queen

    def caller(self, method: str, headers: Headers) -> Client | None:
        """Return whose session the request's cookie is, None without one.

        Raises RbeeError FORBIDDEN for what the page of another site made the browser send.
        """
        session = self.session(headers)
        client = None if session is None else self._client(session.client)
        if session is None or client is None:
            return None
        check_site(headers)
        if method not in _SAFE:
            _check_change(session, headers)
        return client

    def session(self, headers: Headers) -> Session | None:
        """Return the session of a request's cookie."""
        # Any program on the same host may have put something into the jar, of whatever form.
        token = cookie_parser(headers.get(b"cookie", b"").decode("latin-1")).get(self.name)
        return None if token is None else self._sessions.find(token)


def check_site(headers: Headers) -> None:
    """Raise RbeeError FORBIDDEN for what the page of another site made a browser send."""
    site = headers.get(b"sec-fetch-site")
    if site is not None and site not in _OWN_SITES:
        raise _foreign("it came from a page of another site")


def check_origin(headers: Headers) -> None:
    """Raise RbeeError FORBIDDEN for what the page of another origin made a browser send."""
    origin = headers.get(b"origin")
    forwarded = headers.get(b"x-forwarded-host", b"").split(b",")  # each proxy of a chain adds its own
    hosts = {headers.get(b"host", b""), *(host.strip() for host in forwarded)} - {b""}
    if origin is not None and origin.partition(b"://")[2] not in hosts:
        raise _foreign("it came from a page of another origin", _PROXY)


def _check_change(session: Session, headers: Headers) -> None:
    """Raise RbeeError FORBIDDEN unless the session's own page has sent what changes something."""
    check_origin(headers)
    if not hmac.compare_digest(headers.get(CSRF_HEADER, b""), session.csrf.encode()):
        raise _foreign(f"it lacks the header {CSRF_HEADER.decode()} of its session")


def _foreign(reason: str, hint: str = "Reload the console, or sign in anew: rbee-keeper console") -> RbeeError:
    return RbeeError(ErrorCode.FORBIDDEN, f"The console does not allow this request: {reason}.", hint=hint)
