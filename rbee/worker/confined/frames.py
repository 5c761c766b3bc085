"""Messages between the worker and a confined process: four bytes of length, then JSON. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024


def encode(message: dict[str, Any]) -> bytes:
    """Return the frame of a message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "big") + body


def frame_bytes(head: bytes) -> int:
    """Return the length of the body that follows *head*. Raises ValueError for one that nobody would send."""
    count = int.from_bytes(head, "big")
    if count > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {count} bytes")
    return count


def decode(body: bytes) -> dict[str, Any]:
    """Return the message. Raises ValueError for a body that is none."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("the message is no object")
    return message
