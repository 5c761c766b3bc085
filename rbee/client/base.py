"""The asynchronous HTTP client of a daemon: key, timeouts, connection retries, error bodies as exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

from rbee.client.retry import CONNECT_TIMEOUT_S, CONTROL_TIMEOUT_S, HTTP_CONNECT, NO_TOKEN_TIMEOUT_S, Retries
from rbee.client.web import httpx
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.observe import trace

OnRetry = Callable[[int, int, str], None]
"""Called before each retry: its number from 1, how many there will be, why the last attempt failed."""

CONTROL_TIMEOUT = httpx.Timeout(CONTROL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
STREAM_TIMEOUT = httpx.Timeout(NO_TOKEN_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
WAITING_TIMEOUT = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)


class AsyncDaemonClient:
    """A connection pool to one daemon.

    Every method raises RbeeError: the daemon's own, CONNECTION_TIMEOUT if it does not respond,
    INVALID_RESPONSE if another program responds.
    """

    def __init__(self, name: str, url: str, key: str | None, *, retries: Retries = HTTP_CONNECT) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._key = key
        self._retries = retries
        self._closed = False

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        """Return the pool, made at the first request: of a large fleet's hives most are never sent one."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers=_headers(self._key),
            timeout=CONTROL_TIMEOUT,
            trust_env=False,
            # Loading the trusted certificates takes longer than most requests, and plain HTTP does not need them.
            verify=self.url.startswith("https:"),
        )

    async def close(self) -> None:
        """Close the pool."""
        self._closed = True
        if "_http" in vars(self):
            await self._http.aclose()

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        timeouts: httpx.Timeout = CONTROL_TIMEOUT,
        on_retry: OnRetry | None = None,
    ) -> Any:
        """Send a request and return the JSON of the response; None for 204."""
        request = self._http.build_request(
            method, path, json=body, params=_without_none(params), timeout=timeouts, headers=trace.inject()
        )
        response = await self._send(request, on_retry, stream=False)
        return parse_response(self.name, self.url, response)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        timeouts: httpx.Timeout = STREAM_TIMEOUT,
        on_retry: OnRetry | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Open a stream of events; errors before its start are raised here, later ones where it is read."""
        request = self._http.build_request(
            method, path, json=body, params=_without_none(params), timeout=timeouts, headers=trace.inject()
        )
        response = await self._send(request, on_retry, stream=True)
        try:
            if response.status_code >= 400:
                await response.aread()
                parse_response(self.name, self.url, response)
            yield response
        except httpx.HTTPError as error:
            raise connection_error(self.name, self.url, error) from error
        finally:
            await response.aclose()

    async def _send(self, request: httpx.Request, on_retry: OnRetry | None, *, stream: bool) -> httpx.Response:
        waits = list(self._retries.waits())
        for attempt in range(len(waits) + 1):
            if self._closed:  # perhaps while this request waited for its next attempt
                raise unreachable_error(self.name, self.url, attempt, ConnectionError("the client was closed"))
            try:
                return await self._http.send(request, stream=stream)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if attempt == len(waits):
                    raise unreachable_error(self.name, self.url, attempt + 1, error) from error
                if on_retry is not None:
                    on_retry(attempt + 1, len(waits), describe_failure(error))
                await asyncio.sleep(waits[attempt])
            except httpx.HTTPError as error:
                raise connection_error(self.name, self.url, error) from error
        raise AssertionError("unreachable")


def parse_response(name: str, url: str, response: httpx.Response) -> Any:
    """Return the JSON of a successful response. Raises RbeeError for any other."""
    if response.status_code == 204:
        return None
    try:
        value = response.json()
    except ValueError:
        value = None
    if response.is_success and value is not None:
        return value
    error = RbeeError.from_body(value)
    if error is not None:
        raise error
    raise RbeeError(
        ErrorCode.INVALID_RESPONSE,
        f"{url} responded with HTTP {response.status_code}, but not in the format of {name}.",
        details={"url": url, "status": response.status_code},
    )


def unreachable_error(name: str, url: str, attempts: int, error: Exception) -> RbeeError:
    """Return the error for a daemon that cannot be reached."""
    return RbeeError(
        ErrorCode.CONNECTION_TIMEOUT,
        f"{name} at {url} does not answer ({describe_failure(error)}; {attempts} attempts).",
        details={"url": url, "attempts": attempts},
    )


def connection_error(name: str, url: str, error: httpx.HTTPError) -> RbeeError:
    """Return the error for a request that failed after it was sent."""
    if isinstance(error, httpx.TimeoutException):
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT, f"{name} at {url} took too long to respond.", details={"url": url}
        )
    return RbeeError(
        ErrorCode.INVALID_RESPONSE,
        f"The connection to {name} at {url} was lost: {describe_failure(error)}.",
        details={"url": url},
    )


def describe_failure(error: Exception) -> str:
    """Return in a few words why a connection failed."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"no response within {CONNECT_TIMEOUT_S:.0f} s"
    cause = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(error) or type(error).__name__


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _without_none(params: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if params is None else {key: value for key, value in params.items() if value is not None}
