"""Read from the bytes of a worker's answer how many tokens it took. Pure.

A stream of a compatible interface has its counts in comments, which a worker writes for its queen only: the prompt's
tokens at the start, all of them at the end. What is cut off in between has the count of what was relayed.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from rbee.contracts.ids import USAGE_COMMENT
from rbee.queen.keys.usage import Usage

TAIL_BYTES: Final = 2048
_MAX_DIGITS: Final = 12
_COMMENT: Final = re.compile(rb"(?m)^: " + USAGE_COMMENT.encode() + rb" (\d{1,12}) (\d{1,12}) (\d{1,12})\n\n?")
_COMMENTS: Final = re.compile(rb"(?m)^:.*\n\n?")
_OWN_END: Final = re.compile(rb'(?:^|\n)data: (\{"done":true,.*)\n')
_BODY: Final = b'"usage": '


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
        return Usage(1, _count(done, "prompt_tokens"), _count(done, "cached_tokens"), _count(done, "total_tokens"))
    counted = [match for text in (first, end) for match in _COMMENT.finditer(text)]
    if not counted:
        return Usage(1, answer_tokens=tokens)
    prompt, cached, answer = map(int, counted[-1].groups())
    return Usage(1, prompt, cached, answer or tokens)


def canceled_usage(header: bytes) -> Usage | None:
    """Return what a canceled request used, from the header of a worker; None where it ran no longer."""
    counts = header.split()
    if len(counts) != 3 or not all(count.isdigit() and len(count) <= _MAX_DIGITS for count in counts):
        return None
    return Usage(1, *map(int, counts))


def without_counts(lines: bytes) -> bytes:
    """Return a part of a stream without the worker's comments, which are for the queen."""
    return _COMMENT.sub(b"", lines)


def without_comments(lines: bytes) -> bytes:
    """Return a part of a stream of JSON lines without comments: what keeps it alive is a space in their place."""
    return _COMMENTS.sub(b" ", lines) if lines.startswith(b":") or b"\n:" in lines else lines


def body_usage(tail: bytes) -> Usage:
    """Return what an answer that came whole used, from its last bytes: in each dialect they are its counts."""
    at = tail.rfind(_BODY)
    usage = {} if at < 0 else _parsed(tail[at + len(_BODY) : -1])
    prompt = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    answer = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    # Anthropic's input leaves out what was cached.
    apart = _count(usage, "cache_read_input_tokens")
    return Usage(1, prompt + apart, cached + apart, answer)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _count(counts: dict[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) and value > 0 else 0
