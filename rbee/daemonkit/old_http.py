"""What clients of other versions of HTTP are sent: bodies without chunks for 1.0, a farewell for 2."""

from __future__ import annotations

import asyncio
from typing import Final

HTTP2_PREFACE: Final = b"PRI * HTTP/2"
_HTTP_1_1_REQUIRED: Final = 13
_SETTINGS, _GOAWAY = 4, 7
_CHUNKED: Final = b"transfer-encoding: chunked"


class UnchunkedTransport:
    """A transport to a client of HTTP/1.0, which knows no chunks: for it a body ends with the connection.

    Each write is whole: the head, with or without the body's first chunks, or chunks.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._in_head = True
        self._chunked = False

    def write(self, data: bytes) -> None:
        """Write what is in the chunks."""
        head = b""
        if self._in_head:
            self._in_head = False
            text, end, data = data.partition(b"\r\n\r\n")
            lines = text.split(b"\r\n")
            self._chunked = _CHUNKED in lines
            head = b"\r\n".join(line for line in lines if line != _CHUNKED) + end
        self._transport.write(head + (_without_chunks(data) if self._chunked else data))

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether it is closed, or will be."""
        return self._transport.is_closing()


def _without_chunks(data: bytes) -> bytes:
    """Return what whole chunks hold."""
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        parts.append(data[:length])
        data = data[length + 2 :]
    return b"".join(parts)


def http2_farewell() -> bytes:
    """Return the frames by which a client that began with HTTP/2 learns that HTTP/1.1 is required."""
    reason = (0).to_bytes(4, "big") + _HTTP_1_1_REQUIRED.to_bytes(4, "big") + b"Send HTTP/1.1."
    return _frame(_SETTINGS, b"") + _frame(_GOAWAY, reason)


def _frame(kind: int, payload: bytes) -> bytes:
    """Return a frame of the connection itself, without flags (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + (0).to_bytes(4, "big") + payload
