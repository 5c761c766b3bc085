"""Send a client what its task yields: progress, the worker's bytes, and the end, in the form that it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Send

from rbee.contracts.ids import FALLBACK_HEADER, IGNORED_HEADER
from rbee.contracts.queen import Progress
from rbee.contracts.tasks import Fallback, Narration
from rbee.daemonkit.dialects import Dialect, encode_comment, encode_failure
from rbee.daemonkit.errors import send_error
from rbee.daemonkit.http1 import ClientConnection
from rbee.daemonkit.sse import HEADERS, comment
from rbee.errors import RbeeError
from rbee.queen.progress import Event, encode_event

COMMENTS_AFTER_S: Final = 1.0
_DATA: Final = b"\ndata: "
_EVENT: Final = b"event: "
_IGNORED: Final = IGNORED_HEADER.lower().encode()
_FALLBACK: Final = FALLBACK_HEADER.lower().encode()


class TaskEventSink:
    """A client of `/v2/tasks`: everything is an event of one stream."""

    def __init__(self, send: Send, connection: ClientConnection) -> None:
        self.write = connection.write
        self._send = send
        self._started = False

    async def emit(self, event: Event) -> None:
        """Send the event."""
        await self.send(encode_event(event))

    async def comment(self, text: str) -> None:
        """Send the comment."""
        await self.send(comment(text))

    async def start(self, ignored: bytes = b"") -> None:
        """Do nothing: an event of the task reports it."""

    async def send(self, data: bytes) -> None:
        """Send a chunk, after the head."""
        if not self._started:
            self._started = True
            await self._send(_head(200, Dialect.OWN.media_type))
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def fail(self, error: RbeeError, request_id: str | None) -> None:
        """Send the last event."""
        await self.send(encode_failure(Dialect.OWN, error, request_id))

    async def end(self) -> None:
        """End the stream."""
        await self.send(b"")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class CompatSink:
    """An OpenAI- or Anthropic-compatible client: it gets the worker's answer unchanged.

    While a stream waits, progress is sent as comments, but not in the first second: as long as nothing is sent, a
    refusal has its HTTP status.

    Args:
        dialect: the form of the error that ends a broken stream.
        now: when the request arrived, by *clock*.
    """

    def __init__(
        self,
        send: Send,
        connection: ClientConnection,
        dialect: Dialect,
        *,
        stream: bool,
        now: float,
        clock: Callable[[], float],
    ) -> None:
        self.write = self._write_counted if dialect is Dialect.RESPONSES else connection.write
        self._send = send
        self._connection = connection
        self._events = 0
        self._first = b""
        self._dialect = dialect
        self._stream = stream
        self._clock = clock
        self._since = now
        self._pending: list[Event | str] = []
        self._fallback: str | None = None
        self._started = False
        self._closed = False

    async def emit(self, event: Event) -> None:
        """Send the event as a comment, if the client reads a stream; a header tells of a fallback, if it still can."""
        if isinstance(event, Fallback):
            self._fallback = event.model
        await self._comment(event)

    async def comment(self, text: str) -> None:
        """Send the comment, if the client reads a stream."""
        await self._comment(text)

    async def start(self, ignored: bytes = b"") -> None:
        """Send the head; once it is sent nothing can be added to it."""
        if not self._started:
            self._started = True
            self._connection.coalesce_head()
            head = _head(200, self._dialect.media_type if self._stream else "application/json")
            if ignored:
                head["headers"].append((_IGNORED, ignored))
            if self._fallback is not None:
                head["headers"].append((_FALLBACK, self._fallback.encode()))
            await self._send(head)

    async def send(self, data: bytes) -> None:
        """Send a chunk."""
        self._count(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def fail(self, error: RbeeError, request_id: str | None) -> None:
        """Answer with the error, or end the stream with it, or cut the body, which cannot carry an error."""
        if not self._started:
            self._started = True
            self._closed = True
            await send_error(error, request_id, self._dialect.error_route, self._send)
        elif self._stream:
            response = _response_in(self._first)
            await self.send(encode_failure(self._dialect, error, request_id, number=self._events, response=response))
        else:
            self._closed = True

    async def end(self) -> None:
        """End the response. An answer that was cut gets no end, which the client notices."""
        if not self._closed:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _write_counted(self, data: bytes) -> bool:
        written = self._connection.write(data)
        if written:
            self._count(data)
        return written

    def _count(self, data: bytes) -> None:
        """Note what is sent of a response, whose events are numbered: one that the queen adds has the next number."""
        if self._dialect is Dialect.RESPONSES:
            # No text of a model begins a line.
            self._events += data.startswith(_EVENT) + data.count(b"\n" + _EVENT)
            if _DATA not in self._first:
                self._first += data

    async def _comment(self, event: Event | str) -> None:
        if not self._stream:
            return
        self._pending.append(event)
        if self._clock() - self._since >= COMMENTS_AFTER_S:
            await self.start()
            pending, self._pending = b"".join([_as_comment(one, self._dialect) for one in self._pending]), []
            await self.send(pending)


def _response_in(first: bytes) -> dict[str, Any] | None:
    """Return the response that the first event of a stream tells of; None where there is none."""
    try:
        response = json.loads(first.partition(_DATA)[2].partition(b"\n")[0])["response"]
    except (ValueError, KeyError, TypeError):
        return None
    return response if isinstance(response, dict) else None


def _head(status: int, media_type: str) -> dict[str, Any]:
    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", media_type.encode()), *headers],
    }


def _as_comment(event: Event | str, dialect: Dialect) -> bytes:
    """Encode as a comment what an event tells a person, if anything."""
    if isinstance(event, Narration):
        return encode_comment(dialect, event.human)
    if isinstance(event, Progress):
        return encode_comment(dialect, event.model_dump_json(exclude_none=True))
    return encode_comment(dialect, event) if isinstance(event, str) else b""
