"""Read the events of a stream inside an event loop, and tell an end from a break."""

from __future__ import annotations

from collections.abc import AsyncIterator

from httpx_sse import EventSource, SSEError

from rbee.client.event import Event, broken_stream, foreign_stream, parse_event
from rbee.client.web import httpx
from rbee.contracts.ids import SSE_DONE


async def aevents(response: httpx.Response) -> AsyncIterator[Event]:
    """Give each event until `[DONE]`.

    Raises RbeeError: the one of an `error` event, or INVALID_RESPONSE for a stream that ends in neither.
    """
    url = str(response.request.url)
    try:
        async for raw in EventSource(response).aiter_sse():
            if raw.data == SSE_DONE:
                return
            yield parse_event(raw.event, raw.data, url)
    except SSEError as error:
        raise foreign_stream(url) from error
    raise broken_stream(url)
