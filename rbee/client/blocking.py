"""The blocking HTTP client of a daemon, for the keeper, on the standard library's http.client.

Importing httpx takes longer than a whole `worker list`, so a command-line program does without it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urlsplit

from rbee.client.event import Event, incomplete_stream_error, invalid_stream_error, parse_event
from rbee.client.retry import CONNECT_TIMEOUT_S, CONTROL_TIMEOUT_S, HTTP_CONNECT, Retries
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import SSE_DONE
from rbee.errors import RbeeError
from rbee.net import host_port

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

Json = Mapping[str, Any]


class BlockingClient:
    """A client of one daemon at *url*, with *key*; it opens a connection for each request.

    Every method raises RbeeError: the daemon's own, CONNECTION_TIMEOUT if it does not respond,
    INVALID_RESPONSE if another program responds. A timeout of None waits without limit.
    *connect_timeout_s* is for each attempt to connect. *absent_hint* is the next step if the daemon cannot be reached.
    """

    def __init__(
        self,
        name: str,
        url: str,
        key: str | None,
        *,
        retries: Retries = HTTP_CONNECT,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        absent_hint: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # Imported here and not with the module: it takes a fifth of the time in which a cold command starts its queen.
        import http.client

        self._http = http.client
        self.name = name
        self.url = url.rstrip("/")
        self._address = split_url(self.url)
        self._key = key
        self._retries = retries
        self._connect_timeout_s = connect_timeout_s
        self._absent_hint = absent_hint
        self._sleep = sleep

    def json(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Json | None = None,
        timeout_s: float | None = CONTROL_TIMEOUT_S,
    ) -> Any:
        """Send a request and return the JSON of the response; None if it is empty."""
        connection, response = self._send(method, path + _query(params), body, timeout_s)
        try:
            raw = response.read()
        except (OSError, self._http.HTTPException) as error:
            raise self._connection_error(error) from error
        finally:
            connection.close()
        value = _parse(raw)
        if value is None and raw:
            raise self._invalid_response(response.status)
        return value

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Json | None = None,
        idle_timeout_s: float | None,
    ) -> Iterator[Iterator[Event]]:
        """Open a stream of events; leaving the context closes the connection, which cancels the work behind it.

        *idle_timeout_s* is the longest time without any data. Errors before the first event are raised at once.
        """
        connection, response = self._send(method, path + _query(params), body, idle_timeout_s)
        try:
            if not (response.getheader("Content-Type") or "").startswith("text/event-stream"):
                raise invalid_stream_error(self.url + path)
            yield self._events(response, self.url + path)
        finally:
            response.close()
            connection.close()

    def _events(self, response: HTTPResponse, url: str) -> Iterator[Event]:
        name, data = "message", []
        try:
            for raw in iter(response.readline, b""):
                line = raw.rstrip(b"\r\n").decode("utf-8", "replace")
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif not line:
                    text = "\n".join(data)
                    if text == SSE_DONE:
                        return
                    if data:
                        yield parse_event(name, text, url)
                    name, data = "message", []
        except TimeoutError as error:
            raise self._connection_error(error) from error
        except (OSError, self._http.HTTPException) as error:
            raise incomplete_stream_error(url) from error
        raise incomplete_stream_error(url)

    def _send(
        self, method: str, target: str, body: Json | None, timeout_s: float | None
    ) -> tuple[HTTPConnection, HTTPResponse]:
        headers = {"Accept": "*/*", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        payload = None if body is None else json.dumps(body).encode()
        connection = self._connect_with_retries()
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.request(method, self._address.path + target, payload, headers)
            response = connection.getresponse()
            if response.status < 400:
                return connection, response
            refusal = RbeeError.from_body(_parse(response.read()))
        except (OSError, self._http.HTTPException) as error:
            connection.close()
            raise self._connection_error(error) from error
        except BaseException:
            connection.close()
            raise
        connection.close()
        if refusal is not None and refusal.code is ErrorCode.ROUTE_NOT_FOUND and self._address.path:
            address = self._address._replace(path="", query="", fragment="").geturl()
            refusal.hint = f"The address of {self.name}, {self.url}, has a path. Without a proxy there, write {address}"
        raise refusal or self._invalid_response(response.status)

    def _connect_with_retries(self) -> HTTPConnection:
        """Connect; nothing was sent yet, so a retry is safe for every request."""
        waits = list(self._retries.waits())
        for wait in waits:
            try:
                return self._connect()
            except OSError:
                self._sleep(wait)
        try:
            return self._connect()
        except OSError as error:
            attempts = len(waits) + 1
            raise RbeeError(
                ErrorCode.CONNECTION_TIMEOUT,
                f"{_capitalized(self.name)} at {self.url} does not answer ({_reason(error)}; {_attempts(attempts)}).",
                details={"url": self.url, "attempts": attempts},
                hint=self._absent_hint,
            ) from error

    def _connect(self) -> HTTPConnection:
        kind = self._http.HTTPSConnection if self._address.scheme == "https" else self._http.HTTPConnection
        connection = kind(self._address.hostname or "", self._address.port, timeout=self._connect_timeout_s)
        connection.connect()
        if connection.sock is not None:
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _connection_error(self, error: Exception) -> RbeeError:
        if isinstance(error, TimeoutError):
            return RbeeError(
                ErrorCode.CONNECTION_TIMEOUT,
                f"{_capitalized(self.name)} at {self.url} took too long to respond.",
                details={"url": self.url},
            )
        return RbeeError(
            ErrorCode.INVALID_RESPONSE,
            f"The connection to {self.name} at {self.url} was lost: {_reason(error)}.",
            details={"url": self.url},
        )

    def _invalid_response(self, status: int) -> RbeeError:
        return RbeeError(
            ErrorCode.INVALID_RESPONSE,
            f"{self.url} responded with HTTP {status}, but not in the format of {self.name}.",
            details={"url": self.url, "status": status},
        )


def split_url(url: str) -> SplitResult:
    """Split a URL and fill in its default port. Raises RbeeError CONFIG_INVALID if it is not an HTTP URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RbeeError(
            ErrorCode.CONFIG_INVALID, f"{url!r} is not the URL of a daemon.", hint="Write http://HOST:PORT."
        )
    if port is None:
        parts = parts._replace(netloc=host_port(parts.hostname, 443 if parts.scheme == "https" else 80))
    return parts


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _query(params: Json | None) -> str:
    set_params = {key: value for key, value in (params or {}).items() if value is not None}
    return "?" + urlencode(set_params, doseq=True) if set_params else ""


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no response within {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _capitalized(name: str) -> str:
    return name[:1].upper() + name[1:]


def _attempts(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
