"""Take out of the last lines of a worker's log what says whose requests ran, because errors show them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

_ABOUT_REQUESTS: Final = ("request_id", "trace_id", "task_id", "path")
_MAX_CHARS: Final = 2000


def last_words(lines: Iterable[str]) -> list[str]:
    """Return *lines* without those about single requests, and without ids in the others; long ones are cut."""
    return [words for line in lines if (words := _without_request(line))]


def _without_request(line: str) -> str:
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            if entry.get("message") == "request":
                return ""
            kept = {name: value for name, value in entry.items() if name not in _ABOUT_REQUESTS}
            line = json.dumps(kept, ensure_ascii=False)
    return line[:_MAX_CHARS]
