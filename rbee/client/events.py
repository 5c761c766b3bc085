"""Read the events of a stream, and tell an end from a break."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import SSE_DONE
from rbee.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name (`message` for unnamed ones) and its JSON."""

    name: str
    data: dict[str, Any]


def events(response: httpx.Response) -> Iterator[Event]:
    """Give each event until `[DONE]`.

    Raises RbeeError: the one of an `error` event, or INVALID_RESPONSE for a stream that ends in neither.
    """
    try:
        for raw in EventSource(response).iter_sse():
            if raw.data == SSE_DONE:
                return
            yield _event(raw, response)
    except SSEError as error:
        raise _not_ours(response) from error
    raise _broken(response)


async def aevents(response: httpx.Response) -> AsyncIterator[Event]:
    """Do the same as `events` inside an event loop."""
    try:
        async for raw in EventSource(response).aiter_sse():
            if raw.data == SSE_DONE:
                return
            yield _event(raw, response)
    except SSEError as error:
        raise _not_ours(response) from error
    raise _broken(response)


def _event(raw: ServerSentEvent, response: httpx.Response) -> Event:
    try:
        data = json.loads(raw.data)
    except ValueError as error:
        raise _not_ours(response) from error
    if raw.event == "error":
        raise RbeeError.from_body(data) or _not_ours(response)
    return Event(raw.event, data)


def _not_ours(response: httpx.Response) -> RbeeError:
    url = str(response.request.url)
    return RbeeError(ErrorCode.INVALID_RESPONSE, f"{url} does not stream events as rbee does.", details={"url": url})


def _broken(response: httpx.Response) -> RbeeError:
    url = str(response.request.url)
    return RbeeError(
        ErrorCode.INVALID_RESPONSE,
        f"The stream from {url} broke off: it ended without 'done' and without an error.",
        details={"url": url},
    )
