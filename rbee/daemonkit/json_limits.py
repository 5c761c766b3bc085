"""Bound what a JSON body may hold, before anything is built of it.

A value costs a hundred times its bytes once it is an object of Python, and each value that is wrong costs an error.
The parser bounds the nesting (200 levels), the middleware the bytes; here are the numbers of values. The check is a
few passes at the speed of C; one that looks beyond characters inside strings is made only where there are many.
"""

from __future__ import annotations

from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAX_NODES: Final = 65_536
"""Objects, arrays and strings, names of fields included: a conversation of 10,000 messages has 50,000."""

MAX_ITEMS: Final = 1_000_000
"""Values that are followed by a comma: more token ids than fit into a body."""

_BEGINNING: Final = 4 * MAX_NODES
_SHAPELESS: Final = bytes(code for code in range(256) if code not in b'[{",\\')


def check_json(body: bytes) -> None:
    """Raise RbeeError PAYLOAD_TOO_LARGE if *body* holds too many values; whether it is JSON at all is not checked."""
    if len(body) <= MAX_NODES:
        return
    shape = body.translate(None, _SHAPELESS)
    if len(shape) <= MAX_NODES:
        return
    # A body of many values shows it at its beginning.
    nodes, items = _count_exactly(body, shape[:_BEGINNING]) if b"\\" not in shape[:_BEGINNING] else (0, 0)
    if nodes <= MAX_NODES:
        # As if no string had such characters in it, which is seldom so and costs more to find out.
        nodes, items = _count(shape, shape.count(b'"'))
        if nodes > MAX_NODES or items > MAX_ITEMS:
            nodes, items = _count_exactly(body, shape)
    if nodes > MAX_NODES:
        raise _too_large(f"more than {MAX_NODES} objects, arrays and strings", MAX_NODES)
    if items > MAX_ITEMS:
        raise _too_large(f"more than {MAX_ITEMS} values", MAX_ITEMS)


def _count(shape: bytes, quotes: int) -> tuple[int, int]:
    """Return the number of nodes and of items, of all that is in *shape*."""
    return quotes // 2 + shape.count(b"[") + shape.count(b"{"), shape.count(b",")


def _count_exactly(body: bytes, shape: bytes) -> tuple[int, int]:
    """Return the number of nodes and of items, without what is inside strings."""
    if b"\\" in shape:
        # In this order: an escaped backslash does not escape the quote behind it.
        shape = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _SHAPELESS)
    quotes = shape.count(b'"')
    if quotes // 2 > MAX_NODES:
        return quotes // 2, 0
    return _count(b"".join(shape.split(b'"')[::2]), quotes)


def _too_large(what: str, limit: int) -> RbeeError:
    return RbeeError(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"The request body holds {what}.",
        details={"max_values": limit},
    )
