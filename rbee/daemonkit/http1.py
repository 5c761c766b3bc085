"""HTTP/1.1 with a bound on a request's head, our error body for what is no HTTP at all, and a way to write at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAX_HEAD_BYTES: Final = 64 * 1024
Write = Callable[[bytes], bool]
"""Writes a piece of a streamed body at once; False, with nothing written, where the client has to be waited for."""

_EXTENSION: Final = "rbee.write"
_REASONS: Final = {400: "Bad Request", 431: "Request Header Fields Too Large"}


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which would collect a header without end, and answer it in plain text."""

    _head_bytes = 0
    _in_head = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the connection, also of one that was reset, whose timer uvicorn would keep until it is due."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and stop where a head grows too large."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Look at the whole head, which may have come in one piece."""
        self._in_head = False
        self._head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head is too large")  # the parser stops, and the answer is `send_400_response`
        super().on_headers_complete()
        # A request for another protocol than HTTP has no cycle.
        if getattr(self.cycle, "scope", None) is self.scope:
            self.scope["extensions"] = {_EXTENSION: {"write": partial(_write, self.cycle)}}

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be a request, and hang up."""
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


def writing(scope: Scope) -> Write:
    """Give the way to write at once for the request of *scope*; where its server has none, one that never does."""
    extensions = scope.get("extensions") or {}
    return cast("Write", extensions[_EXTENSION]["write"]) if _EXTENSION in extensions else _never


def _write(cycle: RequestResponseCycle, data: bytes) -> bool:
    """Do what uvicorn does for a piece of a body, without the coroutines around it."""
    if cycle.disconnected:
        return True
    if cycle.flow.write_paused or not cycle.chunked_encoding:
        return False
    cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    return True


def _never(_data: bytes) -> bool:
    return False
