"""Connect huggingface_hub, which speaks through httpx2, to checked addresses only, and bound what it reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

import httpx2

from rbee.hive.models.source_guard import MAX_REDIRECTS, SourceGuard, pin, proxy_for

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_ANSWER_S: Final = 60.0

# The library has one client for the whole process; the guard is that of the listing which this thread makes.
current_guard: ContextVar[SourceGuard] = ContextVar("current_guard")


def new_client() -> httpx2.Client:
    """Build the client of huggingface_hub. What is compressed could be a thousand times larger, so nothing is."""
    return httpx2.Client(
        transport=GuardedTransport(),
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=None,
        headers={"Accept-Encoding": "identity"},
    )


class GuardedTransport(httpx2.BaseTransport):
    """The counterpart of `guarded_transport` for httpx2."""

    def __init__(self) -> None:
        self._limits = httpx2.Limits(max_keepalive_connections=0)
        self._direct = httpx2.HTTPTransport(limits=self._limits)
        self._proxies: dict[str, httpx2.HTTPTransport] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the first address that accepts a connection. Raises RbeeError where none is allowed."""
        response = self._send(request)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise httpx2.DecodingError("the answer is compressed, which was not asked for", request=request)
        response.stream = _BoundedStream(response.stream, request)
        return response

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        guard = current_guard.get()
        proxy = proxy_for(request.url)
        if proxy is not None:
            guard.check(request.url)
            if proxy not in self._proxies:
                self._proxies[proxy] = httpx2.HTTPTransport(proxy=proxy, limits=self._limits)
            return self._proxies[proxy].handle_request(request)
        *others, last = guard.resolve(request.url)
        for address in others:
            try:
                return self._direct.handle_request(pin(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return self._direct.handle_request(pin(request, last))

    def close(self) -> None:
        """Close all connections."""
        for transport in (self._direct, *self._proxies.values()):
            transport.close()


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream | httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        assert isinstance(stream, httpx2.SyncByteStream)
        self._stream = stream
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        size, until = 0, time.monotonic() + MAX_ANSWER_S
        for piece in self._stream:
            size += len(piece)
            if size > MAX_ANSWER_BYTES or time.monotonic() > until:
                limit = f"{MAX_ANSWER_BYTES} bytes or takes longer than {MAX_ANSWER_S:g} s"
                raise httpx2.ReadError(f"the hub's answer is larger than {limit}", request=self._request)
            yield piece

    def close(self) -> None:
        self._stream.close()
