"""Read the body of a request without a framework."""

from __future__ import annotations

from starlette.types import Receive

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


async def read_body(receive: Receive) -> bytes:
    """Return the body, whose size the middleware limits. Raises RbeeError CANCELED if the client disconnects."""
    pieces: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RbeeError(ErrorCode.CANCELED, "The client disconnected before its request was complete.")
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
