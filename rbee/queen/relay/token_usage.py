"""Read from the bytes of a worker's answer how many tokens, and how long of the device, it took. Pure.

An answer of a compatible interface has its counts in comments, which a worker writes for its queen only: of a stream
the prompt's tokens at the start and everything at the end, of a whole answer everything after it. What is cut off in
between has the count of what was relayed, and no time of the device.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from rbee.contracts.ids import USAGE_COMMENT
from rbee.queen.usage.ledger import Usage

TAIL_BYTES: Final = 80
"""No comment of counts is longer."""
_MAX_DIGITS: Final = 12
_COUNTS: Final = rb": " + USAGE_COMMENT.encode() + rb" (\d{1,12}) (\d{1,12}) (\d{1,12}) (\d{1,12})\n"
_COMMENT: Final = re.compile(rb"(?m)^" + _COUNTS + rb"\n?")
_AFTER_BODY: Final = re.compile(rb"\n" + _COUNTS + rb"\n\Z")
_COMMENTS: Final = re.compile(rb"(?m)^:.*\n\n?")
_OWN_END: Final = re.compile(rb'(?:^|\n)data: (\{"done":true,.*)\n')


def stream_usage(first: bytes, end: bytes, tokens: int) -> Usage:
    """Return what a stream used.

    Args:
        first: its first lines.
        end: its last ones.
        tokens: those counted while it was relayed, for a stream that was cut off.
    """
    own = _OWN_END.search(end)
    if own is not None:
        done = _parsed(own[1])
        prompt, cached, answer = (int(_count(done, f"{what}_tokens")) for what in ("prompt", "cached", "total"))
        return Usage(1, prompt, cached, answer, round(_count(done, "device_ms") * 1000))
    counted = [match for text in (first, end) for match in _COMMENT.finditer(text)]
    if not counted:
        return Usage(1, answer_tokens=tokens)
    prompt, cached, answer, device_us = map(int, counted[-1].groups())
    return Usage(1, prompt, cached, answer or tokens, device_us)


def canceled_usage(header: bytes) -> Usage | None:
    """Return what a canceled request used, from the header of a worker; None where it ran no longer."""
    counts = header.split()
    if len(counts) != 4 or not all(count.isdigit() and len(count) <= _MAX_DIGITS for count in counts):
        return None
    return Usage(1, *map(int, counts))


def without_counts(lines: bytes) -> bytes:
    """Return a part of a stream without the worker's comments, which are for the queen."""
    return _COMMENT.sub(b"", lines)


def without_comments(lines: bytes) -> bytes:
    """Return a part of a stream of JSON lines without comments: what keeps it alive is a space in their place."""
    return _COMMENTS.sub(b" ", lines) if lines.startswith(b":") or b"\n:" in lines else lines


def split_counts(tail: bytes) -> tuple[bytes, Usage]:
    """Return the last bytes of an answer that came whole, `TAIL_BYTES` or more, as its client gets them; its usage."""
    counted = _AFTER_BODY.search(tail)
    return (tail, Usage(1)) if counted is None else (tail[: counted.start()], Usage(1, *map(int, counted.groups())))


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _count(counts: dict[str, Any], name: str) -> float:
    value = counts.get(name)
    return value if isinstance(value, int | float) and value > 0 else 0
