"""What the relay writes to: the client's side of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rbee.errors import RbeeError
from rbee.queen.progress import Event


class ByteSink(Protocol):
    """Where the worker's answer goes: `write` never waits for the client, `send` does."""

    @property
    def write(self) -> Callable[[bytes], bool]:
        """Write a chunk and return True, if the client need not be waited for."""

    async def send(self, data: bytes) -> None:
        """Write a chunk as soon as the client accepts it."""


class ResponseSink(ByteSink, Protocol):
    """The client's side of a task."""

    async def emit(self, event: Event) -> None:
        """Report an event of the task."""

    async def comment(self, text: str) -> None:
        """Send a comment, which no program reads."""

    async def start(self, ignored: bytes = b"") -> None:
        """Start the answer: a worker has accepted the request, but for what of it is *ignored* (a header's value)."""

    async def fail(self, error: RbeeError, request_id: str | None) -> None:
        """Report that there will be no complete answer."""

    async def end(self) -> None:
        """End the response."""
