"""Read the deadline of a request from the header that the queen sends for a client with a deadline."""

from __future__ import annotations

import math

from starlette.requests import Request

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import DEADLINE_HEADER
from rbee.errors import RbeeError


def read_deadline(request: Request) -> float | None:
    """Return the seconds that are left, None without a deadline. Raises RbeeError INVALID_REQUEST."""
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
            f"The header {DEADLINE_HEADER} must be a number of seconds above 0 and up to 86,400.",
            param=DEADLINE_HEADER,
        )
    return seconds
