"""HTTP/1.1 with limits on a request's head and its time, our error body for invalid HTTP, and writes below ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.connections import SLOW_BODY, SLOW_HEAD, ConnectionLimits
from rbee.daemonkit.old_http import HTTP2_PREFACE, UnchunkedTransport, http2_farewell
from rbee.errors import RbeeError

MAX_HEAD_BYTES: Final = 64 * 1024

HEAD_LIMIT_S: Final = 10
BODY_LIMIT_S: Final = 60

_EXTENSION: Final = "rbee.connection"
_REASONS: Final = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with limits that it lacks, and with our error body.

    The time of a head and of a body is bounded by `sweep`, called once a second: a timer for each would cost every
    request more than all else here.
    """

    _head_bytes = 0
    _in_head = False
    _connections: tuple[ClientConnection, ...] = ()
    _swept: tuple[RequestResponseCycle | None, bool] = (None, False)
    _waited_s = 0

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._authenticated = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self._limits.opened(self, self.client[0] if self.client else "", len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection, and its keep-alive timer, which uvicorn keeps after a reset."""
        super().connection_lost(exc)
        self._limits.settled(self)
        self._unset_keepalive_if_required()
        connections, self._connections = self._connections, ()
        for connection in connections:
            connection.mark_lost()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the other protocol."""
        self._limits.settled(self)
        super().handle_websocket_upgrade()

    def mark_authenticated(self) -> None:
        """Note that a request on this connection has shown a key."""
        if not self._authenticated:
            self._authenticated = True
            self._limits.settled(self)

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.transport.close()

    def sweep(self) -> None:
        """Count a second of waiting for a head or a body, and close the connection where that takes too long."""
        # uvicorn does not say that there is none before the first request.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        in_body = cycle is not None and cycle.more_body
        if self.timeout_keep_alive_task is not None or self._swept != (cycle, in_body):
            # Between requests, where the keep-alive timer runs, or in another part of one than a second ago.
            self._swept, self._waited_s = (cycle, in_body), 0
            return
        answering = cycle is not None and not cycle.response_complete
        if self.flow.read_paused if in_body else answering:
            return  # it is this side that takes its time
        self._waited_s += 1
        limit = BODY_LIMIT_S if in_body else HEAD_LIMIT_S
        if self._waited_s >= limit and not self.transport.is_closing():
            self._limits.note(SLOW_BODY if in_body else SLOW_HEAD)
            if cycle is not None and in_body and cycle.response_started:
                self.drop()
                return
            part = "body" if in_body else "head"
            message = f"The {part} of the request did not arrive within {limit} s."
            self._send_error(RbeeError(ErrorCode.REQUEST_TIMEOUT, message, hint="Send the whole request at once."))

    def data_received(self, data: bytes) -> None:
        """Parse *data*, and reject a head that is too large, and HTTP/2."""
        if data.startswith(HTTP2_PREFACE):
            self.transport.write(http2_farewell())
            self.transport.close()
            return
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
            if self.scope["http_version"] == "1.0":
                self.cycle.transport = cast("Any", UnchunkedTransport(self.cycle.transport))
            self.scope["extensions"] = {_EXTENSION: {"connection": connection, "protocol": self}}

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
        self._send_error(error)

    def _send_error(self, error: RbeeError) -> None:
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


def mark_authenticated(scope: Scope) -> None:
    """Note that the request of *scope* has shown a key: its connection is no stranger's."""
    extension = scope.get("extensions", {}).get(_EXTENSION)
    if extension is not None:
        extension["protocol"].mark_authenticated()


def abort(scope: Scope) -> None:
    """Close the connection of the request of *scope* at once, without what was not sent yet."""
    extension = scope.get("extensions", {}).get(_EXTENSION)
    if extension is not None:
        extension["protocol"].transport.abort()
