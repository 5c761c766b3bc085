"""Talk to a daemon inside an event loop: key, timeouts, connection retries, its error body as an exception."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from rbee.client.retry import CONNECT_TIMEOUT_S, CONTROL_TIMEOUT_S, HTTP_CONNECT, NO_TOKEN_TIMEOUT_S, Retries
from rbee.client.web import httpx
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.observe import trace

OnRetry = Callable[[int, int, str], None]
"""Told before each further attempt: its number from 1, how many there will be, why the last one failed."""

CONTROL_TIMEOUT = httpx.Timeout(CONTROL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
STREAM_TIMEOUT = httpx.Timeout(NO_TOKEN_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
WAITING_TIMEOUT = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)


class AsyncDaemonClient:
    """A connection pool to one daemon, for daemons, inside an event loop.

    Every method raises RbeeError: the daemon's own, CONNECTION_TIMEOUT where it does not answer,
    INVALID_RESPONSE where something answers that is not ours.
    """

    def __init__(self, name: str, url: str, key: str | None, *, retries: Retries = HTTP_CONNECT) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=_headers(key),
            timeout=CONTROL_TIMEOUT,
            trust_env=False,
            # Reading the trusted certificates takes longer than most requests; plain HTTP has no use for them.
            verify=self.url.startswith("https:"),
        )

    async def close(self) -> None:
        """Close the pool."""
        await self._http.aclose()

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        patience: httpx.Timeout = CONTROL_TIMEOUT,
        on_retry: OnRetry | None = None,
    ) -> Any:
        """Send a request and give the answer's JSON; None for 204."""
        request = self._http.build_request(
            method, path, json=body, params=_given(params), timeout=patience, headers=trace.inject()
        )
        response = await self._connected(request, on_retry, stream=False)
        return answer(self.name, self.url, response)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        patience: httpx.Timeout = STREAM_TIMEOUT,
        on_retry: OnRetry | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Open a stream of events; what fails before it begins is raised here, what breaks it where it is read."""
        request = self._http.build_request(
            method, path, json=body, params=_given(params), timeout=patience, headers=trace.inject()
        )
        response = await self._connected(request, on_retry, stream=True)
        try:
            if response.status_code >= 400:
                await response.aread()
                answer(self.name, self.url, response)
            yield response
        except httpx.HTTPError as error:
            raise broken(self.name, self.url, error) from error
        finally:
            await response.aclose()

    async def _connected(self, request: httpx.Request, on_retry: OnRetry | None, *, stream: bool) -> httpx.Response:
        waits = list(self._retries.waits())
        for attempt in range(len(waits) + 1):
            if self._http.is_closed:  # its owner gave the daemon up while this request waited
                raise unreachable(self.name, self.url, attempt, ConnectionError("given up"))
            try:
                return await self._http.send(request, stream=stream)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if attempt == len(waits):
                    raise unreachable(self.name, self.url, attempt + 1, error) from error
                if on_retry is not None:
                    on_retry(attempt + 1, len(waits), reason(error))
                await asyncio.sleep(waits[attempt])
            except httpx.HTTPError as error:
                raise broken(self.name, self.url, error) from error
        raise AssertionError("unreachable")


def answer(name: str, url: str, response: httpx.Response) -> Any:
    """Give the JSON of a good answer. Raises RbeeError for any other."""
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
        f"{url} answered HTTP {response.status_code}, but not as {name} does.",
        details={"url": url, "status": response.status_code},
    )


def unreachable(name: str, url: str, attempts: int, error: Exception) -> RbeeError:
    """Make the error for a daemon that no attempt reached."""
    return RbeeError(
        ErrorCode.CONNECTION_TIMEOUT,
        f"{name} at {url} does not answer ({reason(error)}; {attempts} attempts).",
        details={"url": url, "attempts": attempts},
    )


def broken(name: str, url: str, error: httpx.HTTPError) -> RbeeError:
    """Make the error for an exchange that began and broke."""
    if isinstance(error, httpx.TimeoutException):
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT, f"{name} at {url} took too long to answer.", details={"url": url}
        )
    return RbeeError(
        ErrorCode.INVALID_RESPONSE, f"The connection to {name} at {url} broke: {reason(error)}.", details={"url": url}
    )


def reason(error: Exception) -> str:
    """Say in a few words why a connection failed."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    cause = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(error) or type(error).__name__


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _given(params: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if params is None else {key: value for key, value in params.items() if value is not None}
