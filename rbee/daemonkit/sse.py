"""Server-sent events: a response that always ends with an event, and stops when its client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.contracts.ids import SSE_DONE
from rbee.daemonkit.disconnect import wait_for_disconnect
from rbee.daemonkit.errors import internal_error
from rbee.errors import RbeeError

PING_INTERVAL_S = 15.0
CHECK_INTERVAL_S = 2.0
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
DONE = f"data: {SSE_DONE}\n\n".encode()


def comment(text: str) -> bytes:
    """Encode a comment, which clients ignore, on one line."""
    return b": " + " ".join(text.split()).encode() + b"\n\n"


PING = comment("ping")


def encode(data: BaseModel | dict[str, Any], event: str | None = None) -> bytes:
    """Encode one event; without a name it is an unnamed `data:` event."""
    text = data.model_dump_json(exclude_none=True) if isinstance(data, BaseModel) else json.dumps(data)
    return f"event: {event}\ndata: {text}\n\n".encode() if event else f"data: {text}\n\n".encode()


def encode_error(error: RbeeError, request_id: str | None = None) -> bytes:
    """Encode the event that ends a stream which failed after its start."""
    return encode(error.body(request_id), "error")


class EventStream(Response):
    """A response that sends each encoded event of *events* at once.

    An RbeeError from the generator becomes an `error` event; any other exception becomes an INTERNAL one and is
    raised, for the middleware to log. When the client disconnects, the generator is closed: release resources in
    `finally`. An endless stream needs *until*, usually the drain's `closed`. *check* is called before each event, and
    every `CHECK_INTERVAL_S`: it raises the RbeeError that ends the stream of a caller who may not read on.
    """

    media_type = "text/event-stream"
    ping = PING

    def __init__(
        self,
        events: AsyncIterator[bytes],
        *,
        until: asyncio.Event | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._until = until
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the generator ends, the client disconnects, or *until* is set."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.ensure_future(self._send_all(send, scope.get("state", {})))
        leaving = asyncio.ensure_future(wait_for_disconnect(receive))
        waits: set[asyncio.Future[Any]] = {sending, leaving}
        if self._until is not None:
            waits.add(asyncio.ensure_future(self._until.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            aclose = getattr(self._events, "aclose", None)
            if aclose is not None:
                await aclose()
        if not leaving.done() or leaving.cancelled():
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        if sending.done() and not sending.cancelled():
            sending.result()

    def encode_error(self, error: RbeeError, request_id: str | None) -> bytes:
        """Encode the event that ends the stream where it fails."""
        return encode_error(error, request_id)

    async def _send_all(self, send: Send, state: dict[str, Any]) -> None:
        request_id = state.get("request_id")
        iterator = self._events.__aiter__()
        pending: asyncio.Future[bytes] | None = None
        try:
            while True:
                if pending is None:
                    pending = asyncio.ensure_future(_next(iterator))
                done = await self._wait_for(pending)
                body = self.ping
                if done:
                    try:
                        body, pending = pending.result(), None
                    except _EndError:
                        return
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except RbeeError as error:
            state["error"] = error
            await send({"type": "http.response.body", "body": self.encode_error(error, request_id), "more_body": True})
        except Exception:
            body = self.encode_error(internal_error(), request_id)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            raise
        finally:
            if pending is not None:
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)

    async def _wait_for(self, pending: asyncio.Future[bytes]) -> bool:
        """Return whether the next event is there before it is time for a ping."""
        if self._check is None:
            return bool((await asyncio.wait({pending}, timeout=PING_INTERVAL_S))[0])
        until = time.monotonic() + PING_INTERVAL_S
        done: set[asyncio.Future[bytes]] = set()
        while not done and time.monotonic() < until:
            done, _ = await asyncio.wait({pending}, timeout=CHECK_INTERVAL_S)
            self._check()
        return bool(done)


class _EndError(Exception):
    """Raised when the generator has ended; a future cannot carry StopAsyncIteration itself."""


async def _next(iterator: AsyncIterator[bytes]) -> bytes:
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        raise _EndError from None
