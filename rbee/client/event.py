"""One event of a stream, and the errors of a stream that is not valid. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name (`message` for unnamed ones) and its JSON."""

    name: str
    data: dict[str, Any]


def parse_event(name: str, text: str, url: str) -> Event:
    """Parse one event. Raises RbeeError: the one of an `error` event, INVALID_RESPONSE for any other data."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise invalid_stream_error(url) from error
    if name == "error":
        raise RbeeError.from_body(data) or invalid_stream_error(url)
    if not isinstance(data, dict):
        raise invalid_stream_error(url)
    return Event(name, data)


def invalid_stream_error(url: str) -> RbeeError:
    """Return the error for a stream that is not in the format of rbee."""
    return RbeeError(
        ErrorCode.INVALID_RESPONSE, f"{url} does not stream events in the format of rbee.", details={"url": url}
    )


def incomplete_stream_error(url: str) -> RbeeError:
    """Return the error for a stream that ended without its last event."""
    return RbeeError(
        ErrorCode.INVALID_RESPONSE,
        f"The stream from {url} is incomplete: it ended without 'done' and without an error.",
        details={"url": url},
    )
