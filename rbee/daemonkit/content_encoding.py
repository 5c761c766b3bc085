"""Decompress the body of a request as it comes, within the bounds of a body that is sent as it is."""

from __future__ import annotations

import zlib
from typing import Final

from starlette.types import Message, Receive

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_GZIP: Final = zlib.MAX_WBITS | 16


def decoded(receive: Receive, encoding: bytes, max_bytes: int) -> Receive:
    """Return *receive* with the body decoded as *encoding*, the value of `Content-Encoding`, says.

    A message holds a little more than *max_bytes* at most; whoever counts them refuses that.

    Raises RbeeError UNSUPPORTED_ENCODING for another one than gzip; in `receive` INVALID_REQUEST for a damaged body.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return receive
    if name not in (b"gzip", b"x-gzip"):
        raise RbeeError(
            ErrorCode.UNSUPPORTED_ENCODING,
            f"A body with the content encoding {name.decode('latin-1')[:60]!r} is not accepted; 'gzip' is.",
            details={"accepted": ["gzip"]},
        )
    inflater = zlib.decompressobj(_GZIP)

    async def receive_decoded() -> Message:
        message = await receive()
        if message["type"] != "http.request":
            return message
        try:
            body = inflater.decompress(message.get("body", b""), max_bytes + 1)
        except zlib.error as error:
            raise RbeeError(ErrorCode.INVALID_REQUEST, f"The body is not gzip: {error}.") from error
        if inflater.unused_data:
            # Several members (RFC 1952, section 2.2) are legal; thousands of empty ones would take seconds.
            raise RbeeError(ErrorCode.INVALID_REQUEST, "The gzip body goes on after its end; send it as one member.")
        if not inflater.eof and not message.get("more_body", False) and len(body) <= max_bytes:
            raise RbeeError(ErrorCode.INVALID_REQUEST, "The gzip body is incomplete.")
        return {**message, "body": body}

    return receive_decoded
