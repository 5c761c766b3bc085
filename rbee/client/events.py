"""Read the events of a stream asynchronously, and check that it is complete."""

from __future__ import annotations

from collections.abc import AsyncIterator

from httpx_sse import EventSource, SSEError

from rbee.client.event import Event, incomplete_stream_error, invalid_stream_error, parse_event
from rbee.client.web import httpx
from rbee.contracts.ids import SSE_DONE


async def read_events(response: httpx.Response) -> AsyncIterator[Event]:
    """Yield each event until `[DONE]`.

    Raises RbeeError: the one of an `error` event, or INVALID_RESPONSE for a stream that ends in neither.
    """
    url = str(response.request.url)
    try:
        async for raw in EventSource(response).aiter_sse():
            if raw.data == SSE_DONE:
                return
            yield parse_event(raw.event, raw.data, url)
    except SSEError as error:
        raise invalid_stream_error(url) from error
    raise incomplete_stream_error(url)
