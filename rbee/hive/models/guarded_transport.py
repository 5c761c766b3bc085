"""Connect httpx to checked addresses only, for the files of models."""

from __future__ import annotations

import asyncio

from rbee.client.web import httpx
from rbee.hive.models.source_guard import SourceGuard, pin, proxy_for


class GuardedTransport(httpx.AsyncBaseTransport):
    """A transport that asks *guard* before each connection; see `source_guard`.

    No connection is kept for the next request: two names at one address must each show their own certificate.
    """

    def __init__(self, guard: SourceGuard) -> None:
        self._guard = guard
        self._limits = httpx.Limits(max_keepalive_connections=0)
        self._direct = httpx.AsyncHTTPTransport(limits=self._limits)
        self._proxies: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first address that accepts a connection. Raises RbeeError where none is allowed."""
        proxy = proxy_for(request.url)
        if proxy is not None:
            self._guard.check(request.url)
            if proxy not in self._proxies:
                self._proxies[proxy] = httpx.AsyncHTTPTransport(proxy=proxy, limits=self._limits)
            return await self._proxies[proxy].handle_async_request(request)
        *others, last = await asyncio.to_thread(self._guard.resolve, request.url)
        for address in others:
            try:
                return await self._direct.handle_async_request(pin(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._direct.handle_async_request(pin(request, last))

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._direct, *self._proxies.values()):
            await transport.aclose()
