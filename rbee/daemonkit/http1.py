"""HTTP/1.1 with a limit on a request's head, our error body for invalid HTTP, and writes below ASGI."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAX_HEAD_BYTES: Final = 64 * 1024

_EXTENSION: Final = "rbee.connection"
_REASONS: Final = {400: "Bad Request", 431: "Request Header Fields Too Large"}


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with a limit on the head, which uvicorn lacks, and with our error body."""

    _head_bytes = 0
    _in_head = False
    _connections: tuple[ClientConnection, ...] = ()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection, and its keep-alive timer, which uvicorn keeps after a reset."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        connections, self._connections = self._connections, ()
        for connection in connections:
            connection.mark_lost()

    def data_received(self, data: bytes) -> None:
        """Parse *data*, and reject a head that is too large."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Start to count the bytes of the head."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Check the size of the whole head, which may have arrived in one piece."""
        self._in_head = False
        self._head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head is too large")  # the parser stops and calls `send_400_response`
        super().on_headers_complete()
        # An upgrade to another protocol has no cycle.
        if getattr(self.cycle, "scope", None) is self.scope:
            connection = ClientConnection(self.cycle)
            # A pipelined request leaves the one before it unanswered, which stays in the list.
            self._connections = (*(before for before in self._connections if not before.answered), connection)
            self.scope["extensions"] = {_EXTENSION: {"connection": connection}}

    def send_400_response(self, msg: str) -> None:
        """Send the error for invalid HTTP, and close the connection."""
        if self._head_bytes > MAX_HEAD_BYTES:
            error = RbeeError(
                ErrorCode.HEADER_TOO_LARGE,
                f"The head of the request is larger than {MAX_HEAD_BYTES} bytes.",
                details={"max_bytes": MAX_HEAD_BYTES},
            )
        else:
            error = RbeeError(ErrorCode.INVALID_REQUEST, msg, hint="Send HTTP/1.1.")
        body = json.dumps(error.body()).encode()
        head = (
            f"HTTP/1.1 {error.http_status} {_REASONS[error.http_status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class ClientConnection:
    """The client connection of one request, for writes that bypass ASGI and its coroutine for each message."""

    __slots__ = ("_cycle", "_disconnect_callback")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._disconnect_callback: Callable[[], object] | None = None

    @property
    def answered(self) -> bool:
        """Return whether the whole response was written."""
        return self._cycle.response_complete

    def write(self, data: bytes) -> bool:
        """Write a chunk of a streamed body; return False, with nothing written, if the client is too slow."""
        cycle = self._cycle
        if cycle.disconnected:
            return True
        if cycle.flow.write_paused or not cycle.chunked_encoding:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def coalesce_head(self) -> None:
        """Send the head of the response together with the first chunk of its body: one write instead of two."""
        self._cycle.transport = cast("Any", _HeadCoalescer(self._cycle))

    def on_disconnect(self, call: Callable[[], object] | None) -> None:
        """Set the only callback for a disconnect before the response is complete; call it at once if that happened."""
        self._disconnect_callback = call
        if call is not None and self._cycle.disconnected:
            call()

    def mark_lost(self) -> None:
        """Mark the connection as lost, and call the callback."""
        cycle = self._cycle
        if cycle.response_complete:
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if self._disconnect_callback is not None:
            self._disconnect_callback()


class _HeadCoalescer:
    """A transport that holds the first write back until the second one."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
            return
        self._cycle.transport = self._transport
        self._transport.write(self._head + data)

    def close(self) -> None:
        self._cycle.transport = self._transport
        self._transport.write(self._head or b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def connection_of(scope: Scope) -> ClientConnection:
    """Return the client connection of the request of *scope*, which `BoundedHttp` received."""
    return cast("ClientConnection", scope["extensions"][_EXTENSION]["connection"])
