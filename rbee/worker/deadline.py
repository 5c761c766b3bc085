"""Read from a request how many seconds are left for it: the queen says so, whose client has a deadline."""

from __future__ import annotations

import math

from starlette.requests import Request

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import DEADLINE_HEADER
from rbee.errors import RbeeError


def deadline_of(request: Request) -> float | None:
    """Give the seconds, None without a deadline. Raises RbeeError INVALID_REQUEST for what is no number of seconds."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86_400:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"The header {DEADLINE_HEADER} is not a number of seconds up to 86,400.",
            param=DEADLINE_HEADER,
        )
    return seconds
