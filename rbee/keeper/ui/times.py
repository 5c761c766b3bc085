"""Read and write points in time as people give them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final

_SPAN: Final = re.compile(r"(\d{1,6})\s*([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def parse_span(text: str) -> int | None:
    """Return the seconds of a span of time (90s, 5m, 12h, 30d, 8w); None for anything else."""
    span = _SPAN.fullmatch(text.strip().lower())
    return None if span is None else int(span[1]) * _SECONDS[span[2]]


def parse_expiry(text: str, now: float) -> int | None:
    """Return seconds since the epoch for a span from *now* (12h, 30d, 8w) or an ISO date or time; None for others.

    A date or time without a zone is one of UTC.
    """
    span = parse_span(text)
    if span is not None:
        return int(now) + span
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def parse_day(text: str, now: float) -> str | None:
    """Return the day (UTC) of a span back from *now* (30d, 8w) or of an ISO date, as 2026-11-28; None for others."""
    span = parse_span(text)
    try:
        if span is not None:
            return datetime.fromtimestamp(now - span, UTC).date().isoformat()
        return date.fromisoformat(text.strip()).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def date_text(unix: int | None, *, none: str) -> str:
    """Return the time in UTC, to the minute; *none* for no time."""
    return none if unix is None else datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M")
