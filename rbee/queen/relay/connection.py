"""Speak HTTP/1.1 to a worker at the least cost for each event: one connection, bytes as they come.

A general client parses, wraps and times every chunk, which costs a relay several times what the relay itself does.
This one sends one kind of request and delivers the body as it arrives, with reading paused while nobody consumes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from rbee.contracts.ids import IGNORED_HEADER, USAGE_HEADER

HIGH_WATER_BYTES = 256 * 1024
_USAGE: Final = USAGE_HEADER.lower().encode()
_IGNORED: Final = IGNORED_HEADER.lower().encode()


ChunkConsumer = Callable[[bytes], bool]
"""Consumes a chunk of a body at once, and returns whether it can consume another one."""


class UpstreamError(Exception):
    """Raised when a connection ended, or sent what is no HTTP, before its answer was complete."""


class UpstreamTimeout(UpstreamError):  # noqa: N818 -- named as asyncio names its own
    """Raised when a worker received a request and did not begin to answer in time."""


class UpstreamLost(UpstreamTimeout):
    """Raised when a worker's machine was lost before it began to answer."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a worker; one request at a time."""

    def __init__(self) -> None:
        self.reused = False
        self.status = 0
        self.usage = b""
        self.ignored = b""
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._held = 0
        self._paused = False
        self._answered = False
        self._complete = True
        self._broken: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._consume: ChunkConsumer | None = None
        self._full = False

    @property
    def reusable(self) -> bool:
        """Return whether the last answer came whole and the connection is still usable."""
        return self._complete and self._broken is None and not self._chunks

    async def send(self, request: bytes, *, within_s: float) -> int:
        """Send one request and wait for the answer's head, for *within_s* seconds at most; return its status.

        Raises UpstreamTimeout where it did not come in time, and UpstreamError.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._answered = self._complete = False
        self.usage = self.ignored = b""
        self._check()
        if self._transport is None:
            raise UpstreamError("not connected")
        timeout = UpstreamTimeout(f"it did not answer within {within_s:g} s")
        # A timer of its own costs half of what a context of asyncio's does.
        timer = asyncio.get_running_loop().call_later(within_s, self.abort, timeout)
        self._transport.write(request)
        try:
            while not self._answered:
                self._check()
                await self._wait()
        finally:
            timer.cancel()
        return self.status

    async def read(self) -> bytes:
        """Wait for more of the body and return all there is; empty at its end. Raises UpstreamError."""
        while not self._chunks:
            if self._complete:
                return b""
            self._check()
            await self._wait()
        return self._take()

    async def pipe_to(self, consume: ChunkConsumer) -> bool:
        """Pass the body to *consume* as it comes, inside the read itself, which spares waking a task for each chunk.

        Returns:
            False at the body's end; True where *consume* accepts no more for now: what comes is held until the next
            call.

        Raises UpstreamError.
        """
        self._consume, self._full = consume, False
        try:
            if self._chunks:
                self._deliver(consume)
            while not self._full:
                if self._complete:
                    return False
                self._check()
                await self._wait()
            return True
        finally:
            self._consume = None

    async def read_all(self, limit: int) -> bytes:
        """Read a short body whole, at most about *limit* bytes. Raises UpstreamError."""
        body = b""
        while len(body) < limit and (data := await self.read()):
            body += data
        return body

    def close(self) -> None:
        """Close the connection: a worker that still generates notices and stops."""
        if self._transport is not None:
            self._transport.abort()

    def abort(self, why: UpstreamError) -> None:
        """Abort the answer: `send`, `read` and `pipe_to` raise *why*."""
        self._break(why)
        self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are Transports by behaviour only.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.abort(UpstreamError(f"it does not speak HTTP ({error})"))
        if self._consume is not None and self._chunks:
            self._deliver(self._consume)

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the end of the connection."""
        self._break(UpstreamError(str(exc) if exc is not None else "it closed the connection"))

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the token counts of a canceled request, and what of a request is not heeded."""
        if len(name) == len(_USAGE) and name.lower() == _USAGE:
            self.usage = value
        elif len(name) == len(_IGNORED) and name.lower() == _IGNORED:
            self.ignored = value

    def on_headers_complete(self) -> None:
        """Wake `send`."""
        self.status = self._parser.get_status_code()
        self._answered = True
        self._wake()

    def on_body(self, data: bytes) -> None:
        """Hold a chunk of the body until it is consumed, and stop reading where too much is held."""
        self._chunks.append(data)
        if self._consume is not None:
            return  # it is consumed when the rest of what came has been parsed
        self._held += len(data)
        if self._held > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def on_message_complete(self) -> None:
        """Record that the answer is complete."""
        self._complete = True
        if not self._parser.should_keep_alive():
            self._broken = UpstreamError("it does not keep the connection")
        self._wake()

    def _deliver(self, consume: ChunkConsumer) -> None:
        if not consume(self._take()):
            self._consume, self._full = None, True
            self._wake()

    def _take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        if self._paused and self._transport is not None and self._broken is None:
            self._transport.resume_reading()
            self._paused = False
        return data

    def _break(self, why: UpstreamError) -> None:
        if self._broken is None:
            self._broken = why
        self._wake()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
