"""One event of a stream, and what a stream that is not ours is called. Standard library only."""

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
    """Read one event. Raises RbeeError: the one of an `error` event, INVALID_RESPONSE for what is not ours."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise foreign_stream(url) from error
    if name == "error":
        raise RbeeError.from_body(data) or foreign_stream(url)
    if not isinstance(data, dict):
        raise foreign_stream(url)
    return Event(name, data)


def foreign_stream(url: str) -> RbeeError:
    """Make the error for a stream that does not speak our language."""
    return RbeeError(ErrorCode.INVALID_RESPONSE, f"{url} does not stream events as rbee does.", details={"url": url})


def broken_stream(url: str) -> RbeeError:
    """Make the error for a stream that stopped without its end."""
    return RbeeError(
        ErrorCode.INVALID_RESPONSE,
        f"The stream from {url} broke off: it ended without 'done' and without an error.",
        details={"url": url},
    )
