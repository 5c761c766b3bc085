"""Keep connections to workers, and send a request on a kept one or on a new one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from rbee.net import host_port
from rbee.observe import trace
from rbee.queen.relay.connection import UpstreamConnection, UpstreamError, UpstreamLost, UpstreamTimeout

IDLE_KEPT = 64


class UpstreamPool:
    """Connections to workers, kept for the next request.

    Args:
        connect_timeout_s: how long one attempt to connect may take.
        answer_timeout_s: how long a worker may take to begin its answer.
    """

    def __init__(self, connect_timeout_s: float, answer_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._idle: defaultdict[tuple[str, int], list[UpstreamConnection]] = defaultdict(list)
        self._unanswered: defaultdict[str, set[UpstreamConnection]] = defaultdict(set)
        self._closed = False

    async def send(
        self,
        method: str,
        url: str,
        path: str,
        *,
        key: str,
        node: str,
        request_id: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> UpstreamConnection:
        """Send a request to the worker at *url* on *node*; return a connection whose answer's head is there.

        A kept connection may have been closed meanwhile: then the request goes out once more on a new one, to the same
        worker.
        Pass the connection to `release` afterwards, whatever became of it.

        Raises:
            OSError, TimeoutError: the worker cannot be reached, and was not sent the request.
            UpstreamError: it went away before it answered, and may have begun to run the request.
            UpstreamTimeout: it did not answer in time, or was lost with its machine (UpstreamLost).
        """
        address = _address(url)
        request = _request(
            method,
            address,
            path,
            key=key,
            body=body,
            request_id=request_id,
            headers={**trace.inject(), **(headers or {})},
        )
        kept = self._take(address)
        if kept is None:
            return await self._answered(await self._connect(address), request, node)
        try:
            return await self._answered(kept, request, node)
        except UpstreamTimeout:
            raise
        except UpstreamError as broken:
            try:
                upstream = await self._connect(address)
            except (OSError, TimeoutError):
                # The worker is gone, and may have had the request: it must not count as one that never got it.
                raise broken from None
        return await self._answered(upstream, request, node)

    def release(self, url: str, upstream: UpstreamConnection) -> None:
        """Take a connection back: kept if its answer came whole, else cut."""
        idle = self._idle[_address(url)]
        if upstream.reusable and not self._closed and len(idle) < IDLE_KEPT:
            idle.append(upstream)
        else:
            upstream.close()

    def abort_unanswered(self, node: str, why: UpstreamLost) -> None:
        """Give up the requests that *node*, which is lost, has not begun to answer; their `send` raises *why*."""
        for upstream in self._unanswered.get(node, ()):
            upstream.abort(why)

    def close(self) -> None:
        """Close every kept connection."""
        self._closed = True
        for idle in self._idle.values():
            for upstream in idle:
                upstream.close()
        self._idle.clear()

    def _take(self, address: tuple[str, int]) -> UpstreamConnection | None:
        idle = self._idle.get(address)
        while idle:
            upstream = idle.pop()
            if upstream.reusable:
                upstream.reused = True
                return upstream
        self._idle.pop(address, None)
        return None

    async def _answered(self, upstream: UpstreamConnection, request: bytes, node: str) -> UpstreamConnection:
        unanswered = self._unanswered[node]
        unanswered.add(upstream)
        try:
            await upstream.send(request, within_s=self._answer_timeout_s)
        except BaseException:
            upstream.close()
            raise
        finally:
            unanswered.discard(upstream)
        return upstream

    async def _connect(self, address: tuple[str, int]) -> UpstreamConnection:
        async with asyncio.timeout(self._connect_timeout_s):
            _, upstream = await asyncio.get_running_loop().create_connection(UpstreamConnection, *address)
        return upstream


@lru_cache(maxsize=4096)
def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def _request(
    method: str,
    address: tuple[str, int],
    path: str,
    *,
    key: str,
    body: bytes,
    request_id: str,
    headers: Mapping[str, str],
) -> bytes:
    host, port = address
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host_port(host, port)}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nAccept: text/event-stream\r\nX-Request-Id: {request_id}\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
