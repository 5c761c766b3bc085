"""HTTP/1.1 with a bound on a request's head, and our error body for what is no HTTP at all."""

from __future__ import annotations

import json
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAX_HEAD_BYTES: Final = 64 * 1024
_REASONS: Final = {400: "Bad Request", 431: "Request Header Fields Too Large"}


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which would collect a header without end, and answer it in plain text."""

    _head_bytes = 0
    _in_head = False

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
