"""Read and write points in time as people give them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_SPAN: Final = re.compile(r"(\d{1,6})\s*([hdw])")
_SECONDS: Final = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


def parse_expiry(text: str, now: float) -> int | None:
    """Return seconds since the epoch for a span from *now* (12h, 30d, 8w) or an ISO date or time; None for others.

    A date or time without a zone is one of UTC.
    """
    span = _SPAN.fullmatch(text.strip().lower())
    if span is not None:
        return int(now) + int(span[1]) * _SECONDS[span[2]]
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def date_text(unix: int | None, *, none: str) -> str:
    """Return the time in UTC, to the minute; *none* for no time."""
    return none if unix is None else datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M")
