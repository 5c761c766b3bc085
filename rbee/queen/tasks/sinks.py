"""Who gets what a task gives: the story before, the worker's bytes, and the end, in the form that its client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from starlette.types import Send

from rbee.contracts.queen import Progress
from rbee.contracts.tasks import Narration
from rbee.daemonkit.dialects import Dialect, encode_failure
from rbee.daemonkit.errors import send_error
from rbee.daemonkit.http1 import ClientConnection
from rbee.daemonkit.sse import HEADERS, comment
from rbee.errors import RbeeError
from rbee.queen.progress import Event, encode_event

STORY_AFTER_S: Final = 1.0
_STREAM: Final = "text/event-stream; charset=utf-8"


class ByteSink(Protocol):
    """Where the worker's answer goes: `write` does it at once or not at all, `send` waits for the client."""

    @property
    def write(self) -> Callable[[bytes], bool]:
        """Pass on a piece and give True, if the client need not be waited for."""

    async def send(self, data: bytes) -> None:
        """Pass on a piece as soon as the client takes it."""


class ResponseSink(ByteSink, Protocol):
    """The client's side of a task."""

    async def emit(self, event: Event) -> None:
        """Tell what happens on the way."""

    async def comment(self, text: str) -> None:
        """Say something that no program reads."""

    async def start(self) -> None:
        """Note that a worker has taken the request."""

    async def fail(self, error: RbeeError, request_id: str | None) -> None:
        """Tell that there will be no (whole) answer."""

    async def end(self) -> None:
        """End the response."""


class TaskEventSink:
    """A client of `/v2/tasks`: everything is an event of one stream."""

    def __init__(self, send: Send, wire: ClientConnection) -> None:
        self.write = wire.write
        self._send = send
        self._started = False

    async def emit(self, event: Event) -> None:
        """Send the event."""
        await self.send(encode_event(event))

    async def comment(self, text: str) -> None:
        """Send the comment."""
        await self.send(comment(text))

    async def start(self) -> None:
        """Do nothing: an event of the task tells it."""

    async def send(self, data: bytes) -> None:
        """Send it, after the head."""
        if not self._started:
            self._started = True
            await self._send(_head(200, _STREAM))
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def fail(self, error: RbeeError, request_id: str | None) -> None:
        """Send the last event."""
        await self.send(encode_failure(Dialect.OWN, error, request_id))

    async def end(self) -> None:
        """End the stream."""
        await self.send(b"")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class CompatSink:
    """Another people's client: it gets the worker's answer as it is.

    While a stream waits the story is told in comments, but not before it has waited for a moment: as long as nothing
    is sent, what is refused has its HTTP status.

    Args:
        dialect: how a stream that breaks says so.
        now: seconds, for the moment.
    """

    def __init__(
        self,
        send: Send,
        wire: ClientConnection,
        dialect: Dialect,
        *,
        stream: bool,
        now: float,
        clock: Callable[[], float],
    ) -> None:
        self.write = wire.write
        self._send = send
        self._wire = wire
        self._dialect = dialect
        self._stream = stream
        self._clock = clock
        self._since = now
        self._story: list[Event | str] = []
        self._started = False
        self._over = False

    async def emit(self, event: Event) -> None:
        """Tell the story as comments, if the client reads a stream."""
        await self._told(event)

    async def comment(self, text: str) -> None:
        """Put a comment into the story."""
        await self._told(text)

    async def start(self) -> None:
        """Send the head."""
        if not self._started:
            self._started = True
            self._wire.coalesce_head()
            await self._send(_head(200, _STREAM if self._stream else "application/json"))

    async def send(self, data: bytes) -> None:
        """Send it as it is."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def fail(self, error: RbeeError, request_id: str | None) -> None:
        """Answer with the error, or end the stream with it, or break off: half a body cannot say anything."""
        if not self._started:
            self._started = True
            self._over = True
            await send_error(error, request_id, self._send)
        elif self._stream:
            await self.send(encode_failure(self._dialect, error, request_id))
        else:
            self._over = True

    async def end(self) -> None:
        """End the response. An answer that was cut is left without its end, which the client notices."""
        if not self._over:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _told(self, event: Event | str) -> None:
        if not self._stream:
            return
        self._story.append(event)
        if self._clock() - self._since >= STORY_AFTER_S:
            await self.start()
            story, self._story = b"".join(map(_as_comment, self._story)), []
            await self.send(story)


def _head(status: int, media_type: str) -> dict[str, Any]:
    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", media_type.encode()), *headers],
    }


def _as_comment(event: Event | str) -> bytes:
    """Write as a comment what an event says to a person, if anything."""
    if isinstance(event, Narration):
        return comment(event.human)
    if isinstance(event, Progress):
        return comment(event.model_dump_json(exclude_none=True))
    return comment(event) if isinstance(event, str) else b""
