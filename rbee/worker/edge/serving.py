"""Send an answer to its client, as a stream or at once; when the client leaves, the work for it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.daemonkit.dialects import Dialect as Kind
from rbee.daemonkit.dialects import encode_failure
from rbee.daemonkit.disconnect import cancel_on_disconnect
from rbee.daemonkit.errors import internal_error, send_error
from rbee.daemonkit.sse import HEADERS, PING
from rbee.errors import RbeeError
from rbee.worker.edge.answer import Answer, Dialect

log = logging.getLogger(__name__)


class _Leavable(Response):
    """A response whose *cancel* is called when the client leaves, or when it cannot be ended."""

    def __init__(self, media_type: str, cancel: Callable[[], object]) -> None:
        super().__init__(headers=HEADERS, media_type=media_type)
        del self.headers["content-length"]
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer to the end."""
        async with cancel_on_disconnect(receive, self._cancel):
            await self._answered(scope.get("state", {}).get("request_id"), send)

    @abstractmethod
    async def _answered(self, request_id: str | None, send: Send) -> None:
        """Send everything."""


class StreamedAnswer(_Leavable):
    """The answer as it comes.

    Args:
        dialect: writes for the client.
        kind: how a stream that breaks says so.
        cancel: ends the generations.
    """

    def __init__(self, answer: Answer, dialect: Dialect, kind: Kind, *, cancel: Callable[[], object]) -> None:
        super().__init__("text/event-stream", cancel)
        self._answer = answer
        self._dialect = dialect
        self._kind = kind

    async def _answered(self, request_id: str | None, send: Send) -> None:
        async def out(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def tell(choice: int) -> None:
            async for data in self._answer.events(choice, self._dialect):
                await out(data or PING)

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await out(self._dialect.opening(self._answer.prompt_tokens))
        count = len(self._answer.generations)
        try:
            if count == 1:
                await tell(0)
            else:
                await _all(tell(choice) for choice in range(count))
        except RbeeError as error:
            self._cancel()
            await out(encode_failure(self._kind, error, request_id), more=False)
        except Exception:
            await out(encode_failure(self._kind, internal_error(), request_id), more=False)
            raise
        else:
            await out(self._dialect.closing(self._answer.usage), more=False)


class WholeAnswer(_Leavable):
    """The answer at once, as JSON.

    Args:
        work: gives the body.
        cancel: ends the work.
        early: send the head before the work is done, for a queen who lets others wait in line until she has it;
            an answer that cannot be ended is then broken off, which she notices.
    """

    def __init__(self, work: Callable[[], Awaitable[bytes]], *, cancel: Callable[[], object], early: bool) -> None:
        super().__init__("application/json", cancel)
        self._work = work
        self._early = early

    async def _answered(self, request_id: str | None, send: Send) -> None:
        if self._early:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        try:
            body = await self._work()
        except RbeeError as error:
            self._cancel()
            log.info("answer not ended", extra={"fields": {"code": error.code.value, "reason": error.message}})
            if not self._early:
                with contextlib.suppress(OSError):
                    await send_error(error, request_id, send)
            return
        if not self._early:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _all(told: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of them; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(one) for one in told]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
